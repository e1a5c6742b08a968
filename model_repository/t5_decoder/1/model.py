"""The decode engine: encoder states -> pieces of text."""

from neuro_latent_serving.triton.decoder import DecoderModel as TritonPythonModel  # noqa: F401
