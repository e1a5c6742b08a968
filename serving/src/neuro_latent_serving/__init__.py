"""Serving: the decode engine with its KV cache, the Triton models around it, and the server's supervisor."""

__version__ = "0.1.0"
