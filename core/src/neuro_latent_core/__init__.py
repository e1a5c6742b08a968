"""What client, server, trainer and export agree on: request options, tensors, limits, files, the form, the guard."""

__version__ = "0.1.0"
"""Of all six distributions, which are released together; each asks for its siblings by exactly this version."""
