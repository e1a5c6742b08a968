"""The order in which a server's health is asked for, and what is said of it."""

import time
from collections.abc import Iterator
from typing import Any

from . import protocol
from ._transport import LIVE, READY, STREAM_READY, UNARY_READY, UNARY_VERSIONS, Question
from .results import Health

HEALTH_TIMEOUT_S = 5.0


class HealthCheck:
    """Whoever has a transport asks :meth:`questions`, sets ``answer`` after each, and ``problem`` if one fails."""

    def __init__(self, url: str) -> None:
        self.answer: Any = None
        self.problem = ""
        self._start_s = time.monotonic()
        self._url = url
        self._live = False
        self._model_version: str | None = None

    def questions(self) -> Iterator[Question[Any]]:
        """One question after the other, until something is wrong."""
        for question, otherwise in (
            (LIVE, f"{self._url} answers, but not as a live Triton server"),
            (UNARY_READY, f"model {protocol.UNARY_MODEL} is not ready"),
            (STREAM_READY, f"model {protocol.STREAM_MODEL} is not ready"),
            (READY, "the server is not ready"),
        ):
            yield question
            if not self.answer:
                self.problem = otherwise
                return
            self._live = True
        yield UNARY_VERSIONS
        self._model_version = self.answer[-1] if self.answer else None

    def result(self) -> Health:
        ready = self._live and not self.problem
        elapsed_ms = round((time.monotonic() - self._start_s) * 1000, 3)
        return Health(self._url, self._live, ready, self._model_version, self.problem, elapsed_ms)
