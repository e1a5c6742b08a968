"""Runs the graphs in adapters/ of this folder."""

from neuro_latent_serving.triton.projector import ProjectorModel as TritonPythonModel  # noqa: F401
