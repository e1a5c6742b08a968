"""What can be wrong with an export."""


class ExportError(RuntimeError):
    """The repository cannot be written."""
