"""Export: adapter and frozen models -> a Triton model repository of checked ONNX graphs."""

__version__ = "0.1.0"
