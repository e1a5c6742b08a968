"""Keeping texts that quality is measured on out of the training text."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from neuro_latent_trainer.jsonl import parse_json_line

NGRAM = 13
"""Words in a row that two texts must share to count as overlapping (GPT-3, Brown et al. 2020, appendix C)."""

PROVENANCE = ("source", "licence")
"""Fields of a held-out row that are no text of it."""

_WORD = re.compile(r"\w+")


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


class HeldOut:
    """Held-out texts, to be asked whether another text repeats one of them.

    A text of fewer than NGRAM words has no such sequence; it counts as repeated by a text that has the same words.
    Case and punctuation do not count.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._ngrams: set[int] = set()
        self._short: set[tuple[str, ...]] = set()
        self.texts = 0
        for text in texts:
            words = _words(text)
            self.texts += 1
            if len(words) >= NGRAM:
                self._ngrams.update(_hashes(words))
            elif words:
                self._short.add(tuple(words))

    @classmethod
    def read(cls, paths: Iterable[Path]) -> "HeldOut":
        """All texts of JSON-lines files: every field of a row that is text, but for its provenance."""

        def texts() -> Iterator[str]:
            for path in paths:
                with path.open(encoding="utf-8") as file:
                    for number, line in enumerate(file, start=1):
                        row = parse_json_line(line, path, number)
                        yield from (v for k, v in row.items() if isinstance(v, str) and k not in PROVENANCE)

        return cls(texts())

    def repeated_by(self, text: str) -> bool:
        """Whether ``text`` holds NGRAM words in a row of a held-out text, or is a short one."""
        words = _words(text)
        if len(words) < NGRAM:
            return tuple(words) in self._short
        return not self._ngrams.isdisjoint(_hashes(words))


def _hashes(words: list[str]) -> Iterator[int]:
    return (hash(tuple(words[i : i + NGRAM])) for i in range(len(words) - NGRAM + 1))
