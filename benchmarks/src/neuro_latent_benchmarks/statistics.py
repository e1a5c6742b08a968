"""Many measurements in a few numbers."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which ``percent`` of the values lie, interpolated; in the unit of the values.

    Raises:
        ValueError: there are no values, or ``percent`` is not between 0 and 100.
    """
    if not values:
        raise ValueError("there is no percentile of no values")
    if not 0 <= percent <= 100:
        raise ValueError(f"percent must be between 0 and 100, not {percent:g}")
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and spread of ``n`` measurements, in their unit."""

    median: float
    p10: float
    p90: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Condense at least one measurement."""
        return cls(percentile(values, 50), percentile(values, 10), percentile(values, 90), len(values))

    def as_json(self) -> dict[str, float | int]:
        """Rounded to four significant digits."""
        return {"median": significant(self.median), "p10": significant(self.p10), "p90": significant(self.p90)} | {
            "n": self.n
        }

    def __str__(self) -> str:
        return f"{self.median:.4g} ({self.p10:.4g}–{self.p90:.4g})"


def significant(value: float, digits: int = 4) -> float:
    """Rounded to as many digits as a measurement deserves."""
    return float(f"{value:.{digits}g}")


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


def poisson_schedule(rate: float, seconds: float, seed: int) -> list[float]:
    """Arrival times in seconds from 0, with ``rate`` arrivals a second on average and no memory between them.

    Raises:
        ValueError: rate or time is not above 0.
    """
    if rate <= 0 or seconds <= 0:
        raise ValueError(f"rate and seconds must be above 0, not {rate:g} and {seconds:g}")
    random_numbers = random.Random(seed)
    times, now = [], random_numbers.expovariate(rate)
    while now < seconds:
        times.append(now)
        now += random_numbers.expovariate(rate)
    return times


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
