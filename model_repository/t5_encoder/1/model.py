"""Runs model.onnx of this folder."""

from neuro_latent_serving.triton.graph import GraphModel as TritonPythonModel  # noqa: F401
