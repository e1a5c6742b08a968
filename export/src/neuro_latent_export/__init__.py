"""Export: adapter and frozen models -> a Triton model repository of checked ONNX graphs."""

import os

# ONNX Runtime reports usage by default; it reads this before it does anything, so it is set before it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
