"""Stores ratings and edits of answers; answers when they are on disk."""

from neuro_latent_serving.triton.feedback import FeedbackModel as TritonPythonModel  # noqa: F401
