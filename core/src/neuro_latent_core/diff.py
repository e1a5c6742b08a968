"""What is new in an answer: the lines that were added, or the words that a rewrite has changed."""

import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Literal

Change = Literal["same", "gone", "new"]

_WORD = re.compile(r"\s+|[^\s]+")


def word_diff(before: str, after: str) -> Iterator[tuple[Change, str]]:
    """Runs of text that together are ``before`` (without the new ones) and ``after`` (without those that are gone).

    >>> list(word_diff("a function", "a Python function"))
    [('same', 'a '), ('new', 'Python '), ('same', 'function')]
    """
    old, new = _WORD.findall(before), _WORD.findall(after)
    for tag, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            yield "same", "".join(old[i:j])
            continue
        if i < j:
            yield "gone", "".join(old[i:j])
        if k < m:
            yield "new", "".join(new[k:m])


def added_lines(added: str, *, colour: bool) -> str:
    """An addition with a ``+`` before each of its lines, green where there is colour.

    >>> added_lines("In Python.", colour=False)
    '+ In Python.'
    """
    mark = "\x1b[32m+ {}\x1b[0m" if colour else "+ {}"
    return "\n".join(mark.format(line) if line else line for line in added.split("\n"))


def changed_words(before: str, after: str, *, colour: bool) -> str:
    """The diff for a terminal, or with the marks of ``git diff --word-diff`` where there is no colour.

    >>> changed_words("a function", "a Python function", colour=False)
    'a {+Python +}function'
    """
    marks = {"gone": "[-{}-]", "new": "{{+{}+}}", "same": "{}"}
    if colour:
        marks |= {"gone": "\x1b[9;31m{}\x1b[0m", "new": "\x1b[1;32m{}\x1b[0m"}
    return "".join(marks[change].format(text) for change, text in word_diff(before, after))
