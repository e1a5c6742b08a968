"""Condensing measurements."""

import itertools
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro_latent_benchmarks.statistics import Spread, percentile, poisson_schedule, significant

floats = st.floats(-1e6, 1e6)


@given(st.lists(floats, min_size=1))
def test_the_50th_percentile_is_the_median_and_the_ends_are_the_extremes(values: list[float]) -> None:
    assert percentile(values, 50) == pytest.approx(statistics.median(values))
    assert percentile(values, 0) == min(values)
    assert percentile(values, 100) == max(values)


def test_percentiles_lie_between_values() -> None:
    assert percentile([4, 1, 3, 2], 25) == pytest.approx(1.75)
    assert Spread.of([1.0, 2.0, 3.0]).as_json() == {"median": 2.0, "p10": 1.2, "p90": 2.8, "n": 3}


@pytest.mark.parametrize(("values", "percent"), [([], 50), ([1.0], 101), ([1.0], -1)])
def test_there_are_no_percentiles_of_nothing_or_above_100(values: list[float], percent: float) -> None:
    with pytest.raises(ValueError, match=r"percent"):
        percentile(values, percent)


def test_numbers_keep_four_digits() -> None:
    assert [significant(x) for x in (1234.56, 0.00123456, 0.0)] == [1235.0, 0.001235, 0.0]


def test_poisson_arrivals_ascend_repeat_and_have_their_rate_and_spread() -> None:
    times = poisson_schedule(20, 200, seed=1)
    assert times == sorted(times) == poisson_schedule(20, 200, seed=1)
    assert times != poisson_schedule(20, 200, seed=2)
    assert times[0] > 0
    assert times[-1] < 200
    assert len(times) / 200 == pytest.approx(20, rel=0.1)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    # Of an exponential distribution, and of no other that is likely here, mean and deviation are the same.
    assert statistics.stdev(gaps) == pytest.approx(statistics.mean(gaps), rel=0.1)
    with pytest.raises(ValueError, match="rate"):
        poisson_schedule(0, 1, seed=1)
