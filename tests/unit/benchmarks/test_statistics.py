"""Condensing measurements, and comparing texts."""

import itertools
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro_latent_benchmarks.statistics import (
    Spread,
    agreement,
    copied_share,
    per_token,
    percentile,
    poisson_schedule,
    significant,
    speed_up,
)

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


def test_a_token_costs_the_difference_of_two_texts() -> None:
    assert per_token(0.064 + 1.0, 0.008 + 1.0, 64, 8) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="more tokens"):
        per_token(1.0, 1.0, 8, 8)


def test_a_speed_up_is_their_time_over_ours() -> None:
    assert speed_up(6.0, 2.0) == 3.0
    for times in ((0.0, 1.0), (1.0, -0.1)):
        with pytest.raises(ValueError, match="above 0"):
            speed_up(*times)


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


def test_agreement_counts_identical_texts_and_tokens_before_the_first_difference() -> None:
    found = agreement([[1, 2, 3, 4], [5, 6, 7, 8]], [[1, 2, 3, 4], [5, 6, 0, 8]])
    assert found.identical == 0.5
    assert found.same_start == 0.75
    assert agreement([[1, 2]], [[1, 2, 3]]).identical == 0
    with pytest.raises(ValueError, match="cannot compare"):
        agreement([[1]], [])


def test_the_copied_share_counts_pairs_of_the_source() -> None:
    assert copied_share([1, 2, 3, 4], [2, 3, 4]) == 1
    assert copied_share([1, 2, 3, 4], [2, 3, 9, 9, 1]) == 0.25
    assert copied_share([1, 2], [1]) == 0
    numbers = random.Random(0)
    assert copied_share(range(1000), [numbers.randrange(1000) for _ in range(100)]) < 0.1
