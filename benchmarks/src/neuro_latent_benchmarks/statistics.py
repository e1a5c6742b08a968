"""Many measurements in a few numbers."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which ``percent`` of the values lie, interpolated; in the unit of the values.

    Raises:
        ValueError: there are no values, or ``percent`` is not between 0 and 100.
    """
    if not values:
        raise ValueError("there is no percentile of no values")
    if not 0 <= percent <= 100:
        raise ValueError(f"percent must be between 0 and 100, not {percent:g}")
    return float(np.percentile(values, percent))


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


def significant(value: float, digits: int = 4) -> float:
    """Rounded to as many digits as a measurement deserves."""
    return float(f"{value:.{digits}g}")


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
