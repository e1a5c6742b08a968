"""Checks the request; prompt text -> token ids."""

from neuro_latent_serving.triton.tokenizer import TokenizerModel as TritonPythonModel  # noqa: F401
