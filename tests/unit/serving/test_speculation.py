"""Drafts: where they come from, when they are worth a wider step, and that no draft can change a text."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuro_latent_core.options import RequestOptions
from neuro_latent_serving.engine.metrics import EngineMetrics
from neuro_latent_serving.engine.request import Request
from neuro_latent_serving.engine.running import SampledSequences
from neuro_latent_serving.engine.sequence import Event, OutputSequence
from neuro_latent_serving.engine.speculation import (
    SEPARATOR,
    Acceptance,
    Copying,
    Draft,
    Drafter,
    History,
    StepCost,
    best_width,
)
from tests.unit.serving.fakes import EOS, START, FakeDecoder, FakeDetokenizer, Prompt, greedy

# Where drafts come from ---------------------------------------------------------------------------------------------


def copying(prompt: Sequence[int], written: Sequence[int] = ()) -> Copying:
    made = Copying(prompt, START)
    for token in written:
        made.append(token)
    return made


def copied(prompt: Sequence[int], written: Sequence[int] = (), most: int = 7) -> list[int]:
    return list(copying(prompt, written).draft(most).tokens)


def test_the_first_copy_is_how_the_prompt_begins() -> None:
    assert copied([5, 6, 7, 8], most=3) == [5, 6, 7]


def test_a_copy_ends_where_the_prompt_ends() -> None:
    assert copied([5, 6, 7]) == [5, 6, 7]
    assert copied([5, 6, 7], [5, 6]) == [7]
    assert copied([5, 6, 7], [5, 6, 7]) == []


def test_the_longest_match_comes_first() -> None:
    #          after 1 2 3 comes 10; the last 3 alone was followed by 30, the last 2 3 by 20
    prompt = [1, 2, 3, 10, 9, 2, 3, 20, 8, 3, 30]
    assert copied(prompt, [1, 2, 3], 1) == [10]
    assert copied(prompt, [7, 2, 3], 1) == [20]
    assert copied(prompt, [7, 7, 3], 1) == [30]


def test_of_two_matches_the_later_one_counts_and_the_text_is_looked_up_too() -> None:
    assert copied([4, 5, 4, 6], most=1) == [4]
    assert copied([4, 5, 9, 4, 6], [8, 4], 2) == [6]
    assert copied([4, 5], [4, 7, 8, 4], 2) == [7, 8]


def test_a_repetition_is_copied_as_long_as_is_asked() -> None:
    assert copied([], [4, 5, 4, 5], 5) == [4, 5, 4, 5, 4]
    assert copied([], [6, 6], 3) == [6, 6, 6]


def test_nothing_is_copied_for_words_not_seen() -> None:
    assert copied([4, 5], [9]) == []
    assert copied([]) == []


@given(
    st.lists(st.integers(2, 5), max_size=20),
    st.lists(st.integers(2, 5), max_size=20),
    st.integers(1, 7),
)
def test_a_copy_is_what_followed_the_longest_earlier_occurrence(
    prompt: list[int], written: list[int], most: int
) -> None:
    context = [START, *prompt, SEPARATOR, START, *written]
    expected: list[int] = []
    for n in (3, 2, 1):
        earlier = [i for i in range(n, len(context)) if context[i - n : i] == context[-n:]]  # never the end itself
        if earlier:
            following = context[earlier[-1] :]
            expected = [following[i % len(following)] for i in range(most)]  # a repetition goes on repeating
            break
    if SEPARATOR in expected:
        expected = expected[: expected.index(SEPARATOR)]
    found = copied(prompt, written, most)
    assert found == expected
    assert len(found) <= most
    assert SEPARATOR not in found


def test_a_text_that_was_written_is_drafted_from_its_start_to_its_end() -> None:
    history = History()
    history.add([4, 5, 6, 7, 8, EOS])
    assert history.draft([], 3).tokens == [4, 5, 6]
    assert history.draft([4, 5, 6], 2).tokens == [7, 8]
    assert history.draft([4, 5, 6], 7).tokens == [7, 8, EOS]
    assert history.draft([9, 9, 5, 6], 7).tokens == []
    assert history.draft([4, 5], 0).tokens == []


def test_of_what_followed_the_most_frequent_is_drafted_with_its_chance() -> None:
    history = History()
    for _ in range(30):
        history.add([4, 5, 6, 7, 8])
    for _ in range(10):
        history.add([4, 5, 6, 7, 9])
    draft = history.draft([4, 5, 6, 7], 7)
    assert draft.tokens == [8]
    assert draft.chances == pytest.approx([0.75], abs=0.01)
    (seen_once,) = _history([[1, 2, 3, 4]]).draft([1, 2, 3], 1).chances
    assert 0.5 < seen_once < 0.9
    assert history.draft([], 1).chances[0] > 0.98


def test_a_draft_ends_where_it_is_hardly_ever_right() -> None:
    history = _history([[n] for n in range(100)])
    assert history.draft([], 7).tokens == []


def _history(texts: list[list[int]]) -> History:
    history = History()
    for text in texts:
        history.add(text)
    return history


def test_the_history_is_bounded_and_keeps_what_is_new() -> None:
    history = History(most_tokens=10)
    for start in range(100, 200, 10):
        history.add([start, start + 1, start + 2, start + 3])
        assert history.draft([start, start + 1, start + 2], 7).tokens == [start + 3]
    assert history.draft([100, 101, 102], 7).tokens == []


def test_of_copy_and_history_the_one_of_which_more_is_right_is_drafted() -> None:
    history = _history([[4, 5, 6, 7, 8]])
    drafter = Drafter(history, Copying([9, 10, 11, 12], START))
    assert drafter.draft(4).tokens == [4, 5, 6, 7]  # seen once, and nothing is known of the copy
    drafter = Drafter(history, Copying([9, 10, 11, 12, 13, 14], START))
    for token in (9, 10, 11):
        drafter.go_on([token], 0)
    assert drafter.draft(3).tokens == [12, 13, 14]  # no text began so
    assert Drafter(history).draft(4).tokens == [4, 5, 6, 7]
    assert Drafter(_history([])).draft(4).tokens == []


def test_copies_that_were_wrong_lose_against_the_history_and_others_do_not_count_for_them() -> None:
    copying = Copying([9, 10, 11, 12], START)
    drafter = Drafter(_history([]), copying)
    before = copying.draft(1).chances
    drafter.draft(3)
    drafter.go_on([5], 3)
    drafter.go_on([9], 0)
    assert copying.draft(1).chances < before
    from_history = Drafter(_history([[4, 5, 6, 7, 8]]), kept := Copying([9, 10], START))
    assert from_history.draft(3).tokens == [4, 5, 6]
    from_history.go_on([4, 5, 6, 9], 3)
    assert kept.draft(1).chances == [0.5]


def test_a_finished_text_is_remembered() -> None:
    history = History()
    first = Drafter(history)
    first.go_on([4, 5], 0)
    first.go_on([6, EOS], 0)
    assert Drafter(history).draft(4).tokens == []
    first.remember()
    assert Drafter(history).draft(4).tokens == [4, 5, 6, EOS]


# When they pay ------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=60))
def test_the_acceptance_stays_between_zero_and_one(steps: list[tuple[int, int]]) -> None:
    acceptance = Acceptance()
    for drafted, accepted in steps:
        acceptance.observe(drafted, min(drafted, accepted))
        assert 0 < acceptance.probability < 1


def test_the_acceptance_follows_the_text_and_returns_to_one_half_without_drafts() -> None:
    acceptance = Acceptance()
    assert acceptance.probability == 0.5
    for _ in range(20):
        acceptance.observe(3, 0)
    low = acceptance.probability
    assert low < 0.15
    acceptance.observe(0, 0)
    assert low < acceptance.probability < 0.5
    for _ in range(400):
        acceptance.observe(0, 0)
    assert 0.45 < acceptance.probability < 0.5
    for _ in range(20):
        acceptance.observe(3, 3)
    assert acceptance.probability > 0.9


def test_a_draft_is_checked_up_to_its_first_mistake_only() -> None:
    long, short = Acceptance(), Acceptance()
    long.observe(7, 1)
    short.observe(2, 1)
    assert long.probability == short.probability == 0.5


@given(st.integers(0, 7), st.floats(0, 1), st.integers(1, 8))
def test_expected_tokens_are_between_one_and_the_width(length: int, probability: float, width: int) -> None:
    draft = equally_sure(length, probability)
    assert 1 <= draft.expected_tokens(width) <= min(length + 1, width)
    assert draft.expected_tokens(width) >= draft.expected_tokens(1) == 1


def equally_sure(length: int, probability: float) -> Draft:
    return Draft([7] * length, [probability] * length)


def test_expected_tokens_are_those_that_are_reached() -> None:
    draft = Draft([7, 8, 9], [0.5, 0.2, 1.0])
    assert [draft.expected_tokens(width) for width in (1, 2, 3, 4, 8)] == pytest.approx([1, 1.5, 1.6, 1.7, 1.7])


def cost(slope: float) -> StepCost:
    """A step of one token takes a second, each more ``slope`` seconds."""
    made = StepCost()
    for tokens in range(1, 129):
        made.measured(tokens, 1 + slope * (tokens - 1))
    return made


def test_without_drafts_the_step_is_narrow() -> None:
    assert best_width([], rows=3, most=8, cost=cost(0)) == 1


@pytest.mark.parametrize(("length", "most", "width"), [(7, 8, 8), (4, 8, 5), (7, 4, 4)])
def test_sure_drafts_and_cheap_steps_make_it_as_wide_as_draft_and_limit_allow(
    length: int, most: int, width: int
) -> None:
    assert best_width([equally_sure(length, 0.95)], rows=1, most=most, cost=cost(0.01)) == width


@pytest.mark.parametrize(
    ("probability", "slope", "rows"),
    [
        (0.05, 0.2, 1),  # drafts are mostly wrong
        (0.9, 1.0, 1),  # a token more costs a whole step
        (0.9, 0.3, 16),  # fifteen rows pay for the draft of one
    ],
)
def test_it_is_narrow_where_drafts_do_not_pay(probability: float, slope: float, rows: int) -> None:
    assert best_width([equally_sure(7, probability)], rows=rows, most=8, cost=cost(slope)) == 1


@given(
    st.lists(st.builds(equally_sure, st.integers(1, 7), st.floats(0.01, 0.99)), max_size=16),
    st.integers(0, 8),
    st.integers(1, 8),
    st.floats(0.001, 3),
)
def test_the_width_is_the_one_with_the_most_text_a_second(
    drafts: list[Draft], others: int, most: int, slope: float
) -> None:
    rows, costs = len(drafts) + others, cost(slope)
    width = best_width(drafts, rows, most, costs)
    assert 1 <= width <= most

    def speed(width: int) -> float:
        return (others + sum(draft.expected_tokens(width) for draft in drafts)) / (1 + slope * (rows * width - 1))

    if rows:
        assert speed(width) >= max(speed(w) for w in range(1, most + 1)) * (1 - 1e-9)


def test_the_cost_of_a_size_not_measured_lies_on_the_line_of_its_neighbours() -> None:
    costs = StepCost()
    assert costs.of(4) / costs.of(1) == pytest.approx(1 + 3 * StepCost.ASSUMED_SLOPE)
    costs.measured(2, 0.010)
    costs.measured(10, 0.018)
    costs.measured(20, 0.048)
    assert [costs.of(n) for n in (2, 6, 10, 15, 30)] == pytest.approx([0.010, 0.014, 0.018, 0.033, 0.078])
    assert costs.of(1) == pytest.approx(0.009)
    assert StepCost().of(1) > 0


# They change nothing ------------------------------------------------------------------------------------------------


class Guesses:
    """A drafter that proposes whatever the test draws: mostly the right tokens, so that long drafts are accepted."""

    def __init__(self, rng: np.random.Generator, right: list[int], share: float) -> None:
        self.rng, self.share = rng, share
        self.right, self.at = [*right, EOS, 5, 6, 7, 8, 9, 10, 11, 12], 0

    def go_on(self, tokens: Sequence[int], drafted: int) -> None:
        self.at += len(tokens)

    def remember(self) -> None:
        pass

    def draft(self, most: int) -> Draft:
        count = int(self.rng.integers(0, most + 1))
        return equally_sure_of(
            token if self.rng.random() < self.share else int(self.rng.integers(0, 24))
            for token in self.right[self.at : self.at + count]
        )


def equally_sure_of(tokens: Iterable[int]) -> Draft:
    drafted = list(tokens)
    return Draft(drafted, [0.5] * len(drafted))


@given(
    prompts=st.lists(st.lists(st.integers(2, 23), min_size=1, max_size=6).map(tuple), min_size=1, max_size=4),
    lengths=st.lists(st.integers(1, 30), min_size=4, max_size=4),
    share=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=150)
def test_with_any_drafts_and_any_widths_the_texts_are_the_greedy_ones(
    prompts: list[Prompt], lengths: list[int], share: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    decoder, counts, events = FakeDecoder(slots=4), EngineMetrics(), list[Event]()
    running: list[tuple[SampledSequences, OutputSequence]] = []
    for prompt, length in zip(prompts, lengths, strict=False):
        hidden = np.array(prompt, dtype=np.float32)[:, None]
        (row,) = decoder.join(hidden, np.ones(len(prompt), dtype=np.int64), 1)
        request = Request("raw", hidden, np.ones(len(prompt)), RequestOptions(), lambda e: None, lambda e: None)
        text = OutputSequence(len(running), "raw", length, FakeDetokenizer(), EOS)  # type: ignore[arg-type]
        guesses: Any = Guesses(rng, greedy(prompt, 40), share)
        running.append((SampledSequences(request, [text], [row], START, [None], guesses), text))
    texts, steps = [text for _, text in running], 0
    while running:
        drafts = [draft for sequences, _ in running for draft in sequences.drafts(7)]
        width = int(rng.integers(1, 2 + max((len(draft.tokens) for draft in drafts), default=0)))
        tokens_BW = rng.integers(0, 24, (len(running), width))  # what pads a row may be anything
        for sequences, text in running:
            (row,), (feed,) = sequences.rows, sequences.feeds(width)
            assert len(feed) <= min(width, text.left)  # no token is checked that could not be written
            tokens_BW[row, : len(feed)] = feed
        result = decoder.step(tokens_BW)
        freed = []
        for sequences, _ in running:
            told, done = sequences.take(result, decoder.cache, counts)
            events += told
            freed += done
        moved = decoder.cache.leave(freed)
        running = [(sequences, text) for sequences, text in running if sequences.rows]
        for sequences, text in running:
            sequences.moved(moved)
            # The start token and all that was written are in the cache, but for the last, which comes next.
            assert decoder.cache.lengths_B[sequences.rows[0]] == len(text.tokens)
            assert not text.finished
        steps += 1
    assert [text.tokens for text in texts] == [greedy(p, n) for p, n in zip(prompts, lengths, strict=False)]
    assert decoder.cache.rows == 0
    if share == 0.0:
        return
    assert counts.accepted <= counts.drafted
    assert counts.tokens >= sum(len(text.tokens) for text in texts)


def test_drafts_that_are_all_right_are_all_taken() -> None:
    prompt = next((i, 3) for i in range(2, 24) if len(greedy((i, 3), 33)) == 33)
    decoder, counts = FakeDecoder(slots=1), EngineMetrics()
    hidden = np.array(prompt, dtype=np.float32)[:, None]
    decoder.join(hidden, np.ones(2, dtype=np.int64), 1)
    request = Request("raw", hidden, np.ones(2), RequestOptions(), lambda e: None, lambda e: None)
    text = OutputSequence(0, "raw", 32, FakeDetokenizer(), EOS)  # type: ignore[arg-type]
    drafter: Any = Guesses(np.random.default_rng(0), greedy(prompt, 33), 1.0)
    drafter.draft = lambda most: equally_sure_of(drafter.right[drafter.at : drafter.at + most])
    sequences, steps = SampledSequences(request, [text], [0], START, [None], drafter), 0
    while sequences.rows:
        list(sequences.drafts(7))
        sequences.take(decoder.step(np.array(sequences.feeds(8))), decoder.cache, counts)
        steps += 1
    assert steps == 4
    assert text.tokens == greedy(prompt, 32)
    assert (counts.tokens, counts.drafted, counts.accepted) == (32, 28, 28)
