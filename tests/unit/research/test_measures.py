"""Comparing times and texts of two systems."""

import random

import pytest

from research.baselines.measures import agreement, copied_share, per_token, speed_up


def test_a_token_costs_the_difference_of_two_texts() -> None:
    assert per_token(0.064 + 1.0, 0.008 + 1.0, 64, 8) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="more tokens"):
        per_token(1.0, 1.0, 8, 8)


def test_a_speed_up_is_their_time_over_ours() -> None:
    assert speed_up(6.0, 2.0) == 3.0
    for times in ((0.0, 1.0), (1.0, -0.1)):
        with pytest.raises(ValueError, match="above 0"):
            speed_up(*times)


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
