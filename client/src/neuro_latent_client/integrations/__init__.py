"""The client as a part of other libraries; each module needs the extra of its name."""
