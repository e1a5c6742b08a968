"""The form of an enhanced prompt: the raw prompt with something put behind it, or another text in its place."""

import re
from typing import Final, Literal, get_args

Form = Literal["complement", "rewrite"]
"""What a model writes: what stands behind the raw prompt, or the whole enhanced prompt."""

FORMS: Final[tuple[str, ...]] = get_args(Form)

SEPARATOR: Final = "\n\n"
"""Stands between a raw prompt and its complement."""

_SENTENCE_END = re.compile(r"[.!?:;\"')\]}`]\s*$")


def join(raw: str, complement: str) -> str:
    """The enhanced prompt: the raw prompt byte for byte, and its complement behind it, if it has one.

    >>> join("write a poem", "Give it a title.")
    'write a poem\\n\\nGive it a title.'
    """
    return f"{raw}{SEPARATOR}{complement}" if complement else raw


def complement_of(raw: str, enhanced: str) -> str | None:
    """What stands behind the raw prompt; None where the enhanced prompt does not begin with it.

    ``"write a poem about rain"`` only goes on with the sentence ``"write a poem"``: that is a rewrite.

    >>> complement_of("write a poem", "write a poem\\nGive it a title.")
    'Give it a title.'
    >>> complement_of("write a poem", "a poem, please")  # None
    """
    if not enhanced.startswith(raw):
        return None
    rest = enhanced[len(raw) :]
    if not rest.strip():
        return ""
    starts_anew = rest[0] == "\n" or raw[-1:] in ("\n", "") or (rest[0].isspace() and _SENTENCE_END.search(raw))
    return rest.strip() if starts_anew else None
