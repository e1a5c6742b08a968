"""Whether a complement says its prompt again."""

import re
from typing import Final

_WORD: Final = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u9fff]|[^\W_]+(?:['’][^\W_]+)*+"
)
SEQUENCE: Final = 3
MOST_OF_THE_PROMPT: Final = 0.6
"""Of the prompt's sequences of three words, those that the complement has too."""
MOST_WORDS_OF_THE_PROMPT: Final = 0.85
MOST_OF_THE_COMPLEMENT: Final = 0.5
_SHORT_PROMPT: Final = 5
"""Words. Fewer are its subject, and a complement may name that."""


def repeats(raw: str, complement: str) -> bool:
    """Whether a complement has most of the prompt's words in their order, or is mostly taken from it.

    >>> repeats("haiku about the last bus home", "Write a haiku about the last bus home in three lines.")
    True
    >>> repeats("haiku about the last bus home", "Mention one thing seen from the window of the bus.")
    False
    """
    prompt, words = _words(raw), _words(complement)
    asked, written = _sequences(prompt), _sequences(words)
    if len(prompt) < _SHORT_PROMPT:
        return bool(prompt) and " ".join(words).startswith(" ".join(prompt)) and len(words) <= 2 * len(prompt)
    common = asked & written
    return (
        len(common) >= MOST_OF_THE_PROMPT * len(asked)
        or len(set(prompt) & set(words)) >= MOST_WORDS_OF_THE_PROMPT * len(set(prompt))
        or len(common) > MOST_OF_THE_COMPLEMENT * max(len(written), 1)
    )


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _sequences(words: list[str]) -> set[tuple[str, ...]]:
    return set(zip(*(words[i:] for i in range(SEQUENCE)), strict=False))
