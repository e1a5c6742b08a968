"""What is compared of two systems: the time of a token, and how far their texts are the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


def speed_up(theirs: float, ours: float) -> float:
    """How many times faster ours is: their time over our time.

    Raises:
        ValueError: a time is not above 0 (a difference of two noisy times can be).
    """
    if theirs <= 0 or ours <= 0:
        raise ValueError(f"times must be above 0, not {theirs:g} and {ours:g}; measure again with more rounds")
    return theirs / ours


def per_token(long_s: float, short_s: float, long_tokens: int, short_tokens: int) -> float:
    """Milliseconds of one more token: of two texts' times in seconds, so that what happens once does not count."""
    if long_tokens <= short_tokens:
        raise ValueError(f"the long text must have more tokens than the short one, not {long_tokens}, {short_tokens}")
    return (long_s - short_s) / (long_tokens - short_tokens) * 1000


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the texts of two systems are the same.

    Attributes:
        identical: share of the texts in which every token is the same.
        same_start: share of all tokens before the first that differs; after it the systems read different texts.
    """

    identical: float
    same_start: float


def agreement(ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]) -> Agreement:
    """Compare texts pairwise, token by token.

    Raises:
        ValueError: there is not one text of each for the other, or none at all.
    """
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"cannot compare {len(ours)} texts with {len(theirs)}")
    same, tokens, identical = 0, 0, 0
    for a, b in zip(ours, theirs, strict=True):
        start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        same += start
        tokens += max(len(a), len(b))
        identical += list(a) == list(b)
    return Agreement(identical / len(ours), same / max(tokens, 1))


def copied_share(source: Sequence[int], text: Sequence[int]) -> float:
    """The share of a text's token pairs that are in the source as well: how much of it is copied."""
    pairs = list(pairwise(text))
    known = set(pairwise(source))
    return sum(pair in known for pair in pairs) / len(pairs) if pairs else 0.0
