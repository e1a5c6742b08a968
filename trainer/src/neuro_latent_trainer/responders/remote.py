"""A language model behind an OpenAI-compatible server."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from neuro_latent_trainer.command_line import tracked
from neuro_latent_trainer.responders.responder import KEY_VARIABLE, Answered, ResponderError, Usage

try:
    import openai
except ImportError:
    raise ResponderError(
        "--responder-url needs the package openai: pip install 'neuro-latent-trainer[responder]'"
    ) from None

TIMEOUT_S = 120
RETRIES = 5

Item = TypeVar("Item")


class RemoteResponder:
    """A :class:`~neuro_latent_trainer.responders.Responder` over HTTP; retries, with waiting, are the package's.

    Log-likelihoods come from ``/completions`` with ``echo``, which vLLM and llama.cpp's server have and OpenAI's own
    models have not.

    Args:
        model: its name there.
        url: of the API, as ``http://localhost:8000/v1``.
        concurrency: requests at a time.
    """

    def __init__(self, model: str, url: str, concurrency: int) -> None:
        self._model, self._concurrency = model, concurrency
        # A server without keys takes any.
        key = os.environ.get(KEY_VARIABLE) or "none"
        if not url.startswith(("http://", "https://")):
            raise ResponderError(f"--responder-url {url}: an address begins with http:// or https://")
        try:
            self._client = openai.OpenAI(base_url=url, api_key=key, timeout=TIMEOUT_S, max_retries=RETRIES)
        except Exception as error:  # the package's HTTP library has errors of its own
            raise ResponderError(f"--responder-url {url}: {error}") from None
        self.identity = f"{model} at {url}"
        self.usage, self._lock = Usage(), threading.Lock()

    def answers(self, prompts: Sequence[str], most_tokens: int, stage: str = "") -> list[str]:
        """Chat completions at temperature 0: see :class:`~neuro_latent_trainer.responders.Responder`."""

        def ask(prompt: str) -> str:
            found = self._client.chat.completions.create(
                model=self._model,
                messages=[{"role": "user", "content": prompt}],
                max_tokens=most_tokens,
                temperature=0,
            )
            self._count(found.usage)
            return (found.choices[0].message.content or "").strip()

        return self._each(ask, prompts, stage)

    def log_likelihoods(self, pairs: Sequence[Answered], stage: str = "") -> list[float]:
        """Nats a token: see :class:`~neuro_latent_trainer.responders.Responder`."""

        def ask(pair: Answered) -> float:
            prompt, answer = pair
            text = f"{prompt}\n\n{answer}"
            found = self._client.completions.create(
                model=self._model, prompt=text, max_tokens=1, echo=True, logprobs=0, temperature=0
            )
            self._count(found.usage)
            told = found.choices[0].logprobs
            if told is None or not told.text_offset or not told.token_logprobs:
                raise ResponderError(
                    f"{self.identity} tells no likelihoods (/completions with echo and logprobs): use tasks without "
                    "good answers, or a model that runs here (--responder FILE without --responder-url)"
                )
            begin, end = len(text) - len(answer), len(text)
            offsets = zip(told.text_offset, told.token_logprobs, strict=False)
            nats = [nat for offset, nat in offsets if begin <= offset < end and nat is not None]
            if not nats:
                raise ResponderError("an answer without any token has no likelihood: leave empty answers out")
            return sum(nats) / len(nats)

        return self._each(ask, pairs, stage)

    def _each(self, ask: Callable[[Item], Any], items: Sequence[Item], stage: str) -> list[Any]:
        with ThreadPoolExecutor(self._concurrency) as pool:
            waiting = [pool.submit(ask, item) for item in items]
            try:
                return [one.result() for one in tracked(waiting, stage, len(waiting))]
            except openai.OpenAIError as error:
                raise ResponderError(f"the responder {self.identity} does not answer: {error}") from None
            finally:
                for one in waiting:
                    one.cancel()

    def _count(self, usage: Any) -> None:
        with self._lock:
            self.usage.asked += 1
            if usage is not None:
                self.usage.prompt_tokens += usage.prompt_tokens or 0
                self.usage.answer_tokens += usage.completion_tokens or 0
