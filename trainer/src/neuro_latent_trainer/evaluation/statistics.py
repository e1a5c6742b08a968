"""Means over rows with bootstrap intervals."""

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

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def mean(values: npt.ArrayLike, weights: npt.ArrayLike | None = None, seed: int = 0) -> Interval:
    """Weighted mean over rows, with the percentile bootstrap over rows (Efron and Tibshirani 1993, chapter 13).

    Of two systems on the same rows, take the differences row by row: that is the paired bootstrap.

    Args:
        values: one a row.
        weights: one a row, as the tokens of a loss; None weighs rows alike.
        seed: of the draws.

    Raises:
        ValueError: there are no rows, or no weight.
    """
    numbers = np.asarray(values, dtype=np.float64)
    shares = np.ones_like(numbers) if weights is None else np.asarray(weights, dtype=np.float64)
    if not len(numbers) or not shares.sum() > 0:
        raise ValueError("a mean needs at least one row")
    rng = np.random.default_rng(seed)
    # How often each row is drawn: the same as drawing rows, in one array.
    drawn = rng.multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers)), size=DRAWS)
    totals = drawn @ shares
    means = (drawn @ (numbers * shares))[totals > 0] / totals[totals > 0]
    low, high = np.quantile(means, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Interval(float((numbers * shares).sum() / shares.sum()), float(low), float(high))
