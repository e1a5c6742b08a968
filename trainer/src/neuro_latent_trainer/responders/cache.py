"""Answers and likelihoods on disk, so that a run that was stopped goes on and nothing is paid for twice."""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from neuro_latent_trainer.command_line import tracked
from neuro_latent_trainer.responders.responder import Answered, Responder, ResponderError, Usage


class CachedResponder:
    """A :class:`~neuro_latent_trainer.responders.Responder` that asks another one only what it does not know.

    Args:
        responder: who knows.
        path: an SQLite file; several runs may share it.
        at_a_time: items that are asked before they are written down, and lost where one of them fails.

    Raises:
        ResponderError: the file cannot be used.
    """

    def __init__(self, responder: Responder, path: Path, at_a_time: int) -> None:
        self._responder, self.identity, self._at_a_time = responder, responder.identity, at_a_time
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path, timeout=60)
            self._file.execute("PRAGMA journal_mode=WAL")
            self._file.execute("CREATE TABLE IF NOT EXISTS known (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        except (OSError, sqlite3.Error) as error:
            raise ResponderError(f"the cache {path} cannot be used ({error}): see --responder-cache") from None

    @property
    def usage(self) -> Usage:
        """Of the other one, and what was known."""
        return self._responder.usage

    def answers(self, prompts: Sequence[str], most_tokens: int, stage: str = "") -> list[str]:
        """See :class:`~neuro_latent_trainer.responders.Responder`."""
        return self._known(
            ("answer", most_tokens), prompts, lambda some: self._responder.answers(some, most_tokens), stage
        )

    def log_likelihoods(self, pairs: Sequence[Answered], stage: str = "") -> list[float]:
        """See :class:`~neuro_latent_trainer.responders.Responder`."""
        return self._known(("likelihood",), pairs, self._responder.log_likelihoods, stage)

    def _known(
        self, asked: tuple[Any, ...], items: Sequence[Any], ask: Callable[[list[Any]], list[Any]], stage: str
    ) -> list[Any]:
        keys = [hashlib.sha256(json.dumps([self.identity, *asked, item]).encode()).hexdigest() for item in items]
        found = {key: json.loads(value) for key in set(keys) if (value := self._read(key)) is not None}
        self.usage.cached += sum(key in found for key in keys)
        missing = {key: item for key, item in zip(keys, items, strict=True) if key not in found}
        chunks = [list(missing)[at : at + self._at_a_time] for at in range(0, len(missing), self._at_a_time)]
        for some in tracked(chunks, stage, len(chunks)):
            values = dict(zip(some, ask([missing[key] for key in some]), strict=True))
            self._write(values)
            found |= values
        return [found[key] for key in keys]

    def _write(self, values: dict[str, Any]) -> None:
        rows = [(key, json.dumps(value)) for key, value in values.items()]
        try:
            with self._file:
                self._file.executemany("INSERT OR REPLACE INTO known VALUES (?, ?)", rows)
        except sqlite3.Error as error:
            raise ResponderError(f"the cache {self._path} cannot be written: {error}") from None

    def _read(self, key: str) -> str | None:
        row = self._file.execute("SELECT value FROM known WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None
