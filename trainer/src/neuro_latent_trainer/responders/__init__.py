"""Language models that answer prompts, so that a prompt is judged by the answers that it leads to."""

from neuro_latent_trainer.responders.responder import (
    Answered,
    Responder,
    ResponderError,
    Usage,
    default_cache,
    open_responder,
)

__all__ = ["Answered", "Responder", "ResponderError", "Usage", "default_cache", "open_responder"]
