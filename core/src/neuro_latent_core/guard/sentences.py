"""Whole sentences of a text that was cut, and where a text that is written may end."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

_END: Final = re.compile(r"[.!?…。！？।۔؟][\"'”’»」』)\]]*(?=\s|\Z)|[。！？][”’」』）]*")
_MAY_END: Final = re.compile(r"[.!?…。！？।۔؟\"'”’»」』)）\]\ufffd]")
"""In the last token of a sentence; a part of a character is U+FFFD by itself."""
_NO_END: Final = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|incl|approx|esp|no|fig|mr|mrs|ms|dr|prof|st|[a-z])|(?:\A|\s)\(?\d{1,2})\.\Z",
    re.IGNORECASE,
)
"""Abbreviations, initials and the numbers of a list."""


def whole_sentences(text: str) -> str:
    """A text up to the end of its last whole sentence, "" where it has none; brackets and quotes are closed there.

    >>> whole_sentences("Give an example, e.g. a recipe. Then name the ingr"), whole_sentences("Give an")
    ('Give an example, e.g. a recipe.', '')
    """
    for end in reversed(list(_END.finditer(text))):
        whole = text[: end.end()]
        if not _NO_END.search(whole[-12:]) and whole.count("(") == whole.count(")") and whole.count('"') % 2 == 0:
            return whole
    return ""


def parts(tokens: list[int], counts: Iterable[int], decode: Callable[[list[int]], str]) -> Iterator[tuple[int, str]]:
    """What of a text ends with one of its sentences.

    Args:
        tokens: of the text.
        counts: numbers of first tokens to look at.
        decode: makes text of tokens.

    Yields:
        The count and the text of its tokens, in the order of ``counts``.
    """
    for count in counts:
        if _MAY_END.search(decode(tokens[count - 1 : count])):
            text = decode(tokens[:count]).strip()
            if whole_sentences(text) == text:
                yield count, text
