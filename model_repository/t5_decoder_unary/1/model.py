"""The same engine, one response a request."""

from neuro_latent_serving.triton.unary import UnaryDecoderModel as TritonPythonModel  # noqa: F401
