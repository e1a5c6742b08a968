"""The two forms of an enhanced prompt, and how a complement stands behind the raw prompt."""

from typing import Final, Literal

Form = Literal["complement", "rewrite"]
"""``complement``: the raw prompt, byte for byte, and what the model adds behind it; ``rewrite``: a text of its own."""

SEPARATOR: Final = "\n\n"


def join(raw: str, complement: str) -> str:
    """The enhanced prompt of the complement form: ``raw`` alone where the complement is empty."""
    return raw + SEPARATOR + complement if complement else raw
