"""The choice of the next token, against Hugging Face's filters and against the probabilities."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from neuro_latent_core.options import RequestOptions
from neuro_latent_serving.engine.sampling import Sampler, keep

logits = arrays.arrays(np.float32, st.integers(2, 60), elements=st.floats(-30, 30, width=32))


def hugging_face(logits_V: np.ndarray, options: RequestOptions) -> np.ndarray:
    scores = torch.from_numpy(logits_V.astype(np.float64))[None]
    scores = TemperatureLogitsWarper(options.temperature)(None, scores)
    if options.top_k:
        scores = TopKLogitsWarper(options.top_k)(None, scores)
    if options.top_p < 1:
        scores = TopPLogitsWarper(options.top_p)(None, scores)
    return scores[0].numpy()


def log_softmax(logits_V: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits_V.astype(np.float64)).log_softmax(0).numpy()


def filter_logits(logits_V: np.ndarray, options: RequestOptions) -> np.ndarray:
    kept, scores = keep(logits_V, options)
    filtered = np.full(len(logits_V), -np.inf)
    filtered[kept] = scores
    return filtered


def test_the_filters_are_those_of_hugging_face() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        logits_V = rng.normal(0, 4, 200).astype(np.float32)
        options = RequestOptions(
            temperature=rng.uniform(0.2, 2),
            top_k=int(rng.integers(0, 50)),
            top_p=rng.choice([rng.uniform(0.05, 1), 1.0]),
        )
        np.testing.assert_allclose(filter_logits(logits_V, options), hugging_face(logits_V, options), rtol=1e-12)


@pytest.mark.parametrize("values", [{"top_k": 3}, {"top_p": 0.3}, {"top_k": 5, "top_p": 0.5}])
def test_among_equal_logits_as_many_stay_as_with_hugging_face(values: dict[str, float]) -> None:
    logits_V = np.array([2.0, 1.0, 2.0, 2.0, 0.0, 2.0], dtype=np.float32)
    options = RequestOptions.from_values({"temperature": 1.0, **values})
    assert sorted(filter_logits(logits_V, options)) == pytest.approx(sorted(hugging_face(logits_V, options)))


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    probabilities = np.array([0.5, 0.25, 0.15, 0.1, 0.0])
    with np.errstate(divide="ignore"):
        logits_V = np.log(probabilities)
    sampler = Sampler(RequestOptions(temperature=1.0), seed=4, sequence_index=0)
    drawn = np.array([sampler.draw(logits_V)[0] for _ in range(4000)])
    share = np.bincount(drawn, minlength=5) / len(drawn)
    assert share == pytest.approx(probabilities, abs=4 * 0.5 / len(drawn) ** 0.5)
    assert share[4] == 0


@given(logits, st.integers(1, 5), st.floats(0.05, 1), st.integers(0, 2**63 - 1))
def test_a_token_that_was_cut_is_never_drawn(logits_V: np.ndarray, top_k: int, top_p: float, seed: int) -> None:
    options = RequestOptions(temperature=0.7, top_k=top_k, top_p=top_p)
    logprobs_V = log_softmax(logits_V)
    token, logprob = Sampler(options, seed, 0).draw(logprobs_V)
    assert np.isfinite(filter_logits(logprobs_V, options)[token])
    assert logprob == logprobs_V[token]  # of the model itself, before temperature and cuts


def draws(seed: int, index: int) -> list[int]:
    sampler = Sampler(RequestOptions(temperature=1.0), seed, index)
    return [sampler.draw(np.zeros(1000, dtype=np.float32))[0] for _ in range(8)]


def test_a_seed_repeats_its_draws_and_each_sequence_has_its_own() -> None:
    assert draws(7, 0) == draws(7, 0)
    assert len({tuple(draws(seed, index)) for seed in (0, 7, 2**63 - 1) for index in (0, 1)}) == 6


@pytest.mark.parametrize("top_p", [0.02, 0.5, 0.97, 1 - 1e-9])
@pytest.mark.parametrize("spread", [0.0, 0.1, 4.0])  # all equal; the likely ones many; the likely ones few
def test_the_likeliest_of_a_large_vocabulary_are_those_of_hugging_face(top_p: float, spread: float) -> None:
    logits_V = np.random.default_rng(3).normal(0, spread, 32128).astype(np.float32)
    options = RequestOptions(temperature=1.0, top_p=top_p)
    kept = np.isfinite(filter_logits(logits_V, options))
    expected = np.isfinite(hugging_face(logits_V, options))
    # Of equal tokens as many, and else the same ones, but for those whose probability is within rounding of the limit.
    assert kept.sum() == pytest.approx(expected.sum(), abs=1)
    if spread:
        assert (kept != expected).sum() <= 1


def best(logprobs_V: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.argsort(-logprobs_V, kind="stable")[:count]
    return tokens, logprobs_V[tokens]


@given(
    logits=arrays.arrays(np.float32, st.integers(2, 300), elements=st.floats(-30, 30, width=32), unique=True),
    top_k=st.integers(1, 64),
    top_p=st.floats(0.05, 1),
    temperature=st.floats(0.1, 10),
    seed=st.integers(0, 2**63 - 1),
)
def test_the_best_candidates_give_the_tokens_of_the_whole_row(
    logits: np.ndarray, top_k: int, top_p: float, temperature: float, seed: int
) -> None:
    logprobs_V = log_softmax(logits)
    options = RequestOptions(temperature=temperature, top_k=top_k, top_p=top_p)
    whole, candidates = Sampler(options, seed, 0), Sampler(options, seed, 0, candidates=64)
    assert not candidates.needs_all
    for _ in range(5):
        assert candidates.draw_from(*best(logprobs_V, 64)) == whole.draw(logprobs_V)


@pytest.mark.parametrize(
    ("top_k", "candidates", "needs_all"), [(0, 64, True), (64, 64, False), (65, 64, True), (5, 0, True)]
)
def test_the_whole_row_is_needed_where_the_candidates_do_not_hold_the_top_k(
    top_k: int, candidates: int, needs_all: bool
) -> None:
    assert Sampler(RequestOptions(temperature=1.0, top_k=top_k), 0, 0, candidates).needs_all is needs_all


def test_candidates_are_drawn_as_often_as_they_are_likely_among_the_top_k() -> None:
    logprobs_V = np.log(np.array([0.1, 0.4, 0.25, 0.05, 0.2]))
    sampler = Sampler(RequestOptions(temperature=0.5, top_k=3), seed=4, sequence_index=0, candidates=4)
    drawn = np.array([sampler.draw_from(*best(logprobs_V, 4))[0] for _ in range(4000)])
    squares = np.array([0, 0.4, 0.25, 0, 0.2]) ** 2  # temperature 1/2
    share = np.bincount(drawn, minlength=5) / len(drawn)
    assert share == pytest.approx(squares / squares.sum(), abs=4 * 0.5 / len(drawn) ** 0.5)
    assert set(drawn) == {1, 2, 4}
