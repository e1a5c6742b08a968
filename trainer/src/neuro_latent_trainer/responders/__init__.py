"""Language models that answer prompts, so that a prompt is judged by the answers that it leads to."""

from pathlib import Path

from neuro_latent_trainer.responders.cache import CachedResponder
from neuro_latent_trainer.responders.local import LocalResponder
from neuro_latent_trainer.responders.responder import Answered, Responder, ResponderError, Usage, default_cache

__all__ = ["Answered", "Responder", "ResponderError", "Usage", "default_cache", "open_responder"]


def open_responder(model: str, url: str | None = None, concurrency: int = 8, cache: Path | None = None) -> Responder:
    """A language model as responder.

    Args:
        model: a folder in Hugging Face's format, a name on the Hub, or a GGUF file; with ``url`` the server's name
            of it.
        url: of an OpenAI-compatible server, with its ``/v1``; None runs the model here.
        concurrency: requests to a server at a time.
        cache: where answers are kept, so that a run that was stopped goes on; None keeps none.

    Raises:
        ResponderError: the model or a package is missing.
    """
    responder: Responder
    if url is not None:
        from neuro_latent_trainer.responders.remote import RemoteResponder  # needs openai

        responder = RemoteResponder(model, url, concurrency)
    else:
        responder = LocalResponder(model)
    if cache is None:
        return responder
    return CachedResponder(responder, cache, at_a_time=1 if url is None else concurrency)
