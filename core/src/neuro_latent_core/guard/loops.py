"""Loops: what a model writes when it can't stop. The same words over and over, or the same letters without spaces."""

import re
from collections import Counter
from typing import Final

_RUN_OF_LETTERS: Final = re.compile(r"([^\W\d_])\1{9}")
_RUN_OF_DIGITS: Final = re.compile(r"(\d)\1{19}")
_UNIT: Final = re.compile(r"([^\W_][^\W_]{1,15}?)\1{4,}")
"""A group of two letters or more, five times or more in a row."""
_LEAST_LETTERS: Final = 16
_DIGITS_ONLY: Final = 40
"""Binary numbers and the like may be long."""

_TOKEN: Final = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u9fff]|[^\W_]+")
"""A word, or one character where words have no spaces between them."""
_LONGEST_PHRASE: Final = 8
_TIMES: Final = {1: 5, 2: 4}
"""So often in a row, by its number of words, a phrase is a loop."""
_TIMES_LONGER: Final = 3
_SEQUENCE: Final = 4
_MOST_REPEATED_SHARE: Final = 0.5
"""Of the sequences of four words, those that are there already. Prose has hardly any."""
_LEAST_WORDS: Final = 12
"""Shorter texts repeat by chance."""


def loops(text: str) -> bool:
    """Whether a text repeats itself as no sensible text does.

    >>> loops("very " * 6), loops("pac" + "c" * 30), loops("的" * 20), loops("a very, very long text")
    (True, True, True, False)
    """
    text = text.lower()
    return _without_spaces(text) or _in_a_row(words := _TOKEN.findall(text)) or _all_over(words)


def _without_spaces(text: str) -> bool:
    if _RUN_OF_LETTERS.search(text) or _RUN_OF_DIGITS.search(text):
        return True
    return any(
        match.end() - match.start() >= (_DIGITS_ONLY if match.group(1).isdigit() else _LEAST_LETTERS)
        for match in _UNIT.finditer(text)
    )


def _in_a_row(words: list[str]) -> bool:
    for size in range(1, _LONGEST_PHRASE + 1):
        least = size * (_TIMES.get(size, _TIMES_LONGER) - 1)
        same = 0
        for at in range(size, len(words)):
            same = same + 1 if words[at] == words[at - size] else 0
            if same >= least and not all(map(str.isdigit, words[at - size + 1 : at + 1])):
                return True
    return False


def _all_over(words: list[str]) -> bool:
    if len(words) < _LEAST_WORDS:
        return False
    sequences = Counter(zip(*(words[i:] for i in range(_SEQUENCE)), strict=False))
    total = sequences.total()
    return total - len(sequences) > _MOST_REPEATED_SHARE * total
