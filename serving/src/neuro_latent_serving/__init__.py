"""Serving: the decode engine with its KV cache, the Triton models around it, and the server's supervisor."""

import os

# ONNX Runtime reports usage by default; it reads this before it does anything, so it is set before it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
