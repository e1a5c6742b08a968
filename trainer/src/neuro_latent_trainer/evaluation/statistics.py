"""Means over rows with bootstrap intervals."""

import math
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

DRAWS: Final = 1000
COVERAGE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure, and where 95 % of its bootstrap draws lie."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """Rounded to five decimals."""
        return {name: round(value, 5) for name, value in asdict(self).items()}


def mean(values: npt.ArrayLike, weights: npt.ArrayLike | None = None, seed: int = 0) -> Interval:
    """Weighted mean over rows, with the percentile bootstrap over rows (Efron and Tibshirani 1993, chapter 13).

    Of two systems on the same rows, take the differences row by row: that is the paired bootstrap. Weights are one a
    row, as the tokens of a loss; None weighs rows alike.

    Raises:
        ValueError: there are no rows, or no weight.
    """
    numbers = np.asarray(values, dtype=np.float64)
    shares = np.ones_like(numbers) if weights is None else np.asarray(weights, dtype=np.float64)
    if not len(numbers) or not shares.sum() > 0:
        raise ValueError("a mean needs at least one row")
    return ratio(numbers * shares, shares, seed)


def ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike, seed: int = 0) -> Interval:
    """The ratio of two sums over the same rows, with the percentile bootstrap over rows; nan where nothing divides."""
    above, below = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    rng = np.random.default_rng(seed)
    # How often each row is drawn: the same as drawing rows, in one array.
    drawn = rng.multinomial(len(above), np.full(len(above), 1 / len(above)), size=DRAWS)
    totals = drawn @ below
    found = (drawn @ above)[totals != 0] / totals[totals != 0]
    if not len(found) or below.sum() == 0:
        return Interval(math.nan, math.nan, math.nan)
    low, high = np.quantile(found, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Interval(float(above.sum() / below.sum()), float(low), float(high))


def sign_flips(differences: npt.ArrayLike, weights: npt.ArrayLike | None = None, seed: int = 0) -> float:
    """How likely a mean difference at least this large is, if the sign of every row's difference were chance.

    The two-sided paired randomization test (Fisher 1935; for text systems Noreen 1989), by DRAWS random flips.
    Weights as in :func:`mean`.
    """
    numbers = np.asarray(differences, dtype=np.float64)
    if weights is not None:
        numbers = numbers * np.asarray(weights, dtype=np.float64)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(DRAWS, len(numbers)))
    as_far = np.abs(signs @ numbers) >= abs(numbers.sum()) - 1e-12
    return float((as_far.sum() + 1) / (DRAWS + 1))  # the observed signs are one of the draws
