"""Beam search against Hugging Face ``generate``, and what must hold for any model."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import DynamicCache, EncoderDecoderCache, T5Config, T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from neuro_latent_serving.engine.beams import BeamSearch, Hypothesis
from tests.conftest import Pair
from tests.tiny import enliven

pytestmark = pytest.mark.slow

START, EOS = 0, 1
LogProbs = Callable[[tuple[int, ...]], np.ndarray]
"""The log-probabilities [V] of the token after these."""


def candidates(logprobs: LogProbs, prefixes: list[tuple[int, ...]], count: int) -> tuple[np.ndarray, np.ndarray]:
    rows = [logprobs(prefix) for prefix in prefixes]
    tokens = np.stack([np.argsort(-row, kind="stable")[:count] for row in rows])
    return tokens, np.stack([row[best] for row, best in zip(rows, tokens, strict=True)])


def searched(logprobs: LogProbs, **options: Any) -> BeamSearch:
    """A search run to its end, its texts kept here as the engine keeps its cache."""
    search = BeamSearch(**options)
    prefixes: list[tuple[int, ...]] = [()] * options["num_beams"]
    while not search.finished:
        parents = search.advance(*candidates(logprobs, prefixes, 2 * options["num_beams"]))
        last = search.last_tokens_K
        prefixes = [(*prefixes[parent], int(token)) for parent, token in zip(parents, last, strict=True)]
    return search


@dataclass
class Model:
    """A T5 in float64, so that neither batch size nor a KV cache decides which of two tokens is better."""

    t5: T5ForConditionalGeneration

    def __post_init__(self) -> None:
        self.t5 = self.t5.double().eval()

    @contextmanager
    def ending(self, bias: float) -> Iterator[None]:
        """Make the end token likelier."""

        def raise_eos(_module: Any, _inputs: Any, logits: torch.Tensor) -> torch.Tensor:
            return logits + bias * torch.nn.functional.one_hot(torch.tensor(EOS), logits.shape[-1])

        hook = self.t5.lm_head.register_forward_hook(raise_eos)
        try:
            yield
        finally:
            hook.remove()

    def logprobs(self, prompt: torch.Tensor) -> LogProbs:
        hidden = BaseModelOutput(last_hidden_state=self.t5.encoder(prompt).last_hidden_state.detach())

        @cache
        @torch.no_grad()
        def after(prefix: tuple[int, ...]) -> np.ndarray:
            ids = torch.tensor([[START, *prefix]])
            logits = self.t5(encoder_outputs=hidden, decoder_input_ids=ids, use_cache=False).logits[0, -1]
            return logits.float().log_softmax(-1).numpy()

        return after

    def check(self, prompt: torch.Tensor, logprobs: LogProbs, **options: Any) -> None:
        """Compare tokens and scores of one search with those of Hugging Face."""
        names = {"num_beams", "num_return_sequences", "length_penalty"}
        with torch.no_grad():
            expected = self.t5.generate(
                prompt,
                **{name: options[name] for name in names},
                max_new_tokens=options["max_length"],
                do_sample=False,
                early_stopping=False,
                return_dict_in_generate=True,
                output_scores=True,
                # Given, because generate() sizes its own cache by the encoder's layers, which the tiny T5 has fewer of.
                past_key_values=EncoderDecoderCache(DynamicCache(), DynamicCache()),
            )
        search = searched(logprobs, eos_id=EOS, **options)
        found = search.hypotheses()
        assert len(found) == options["num_return_sequences"]
        for hypothesis, sequence, score in zip(
            found, expected.sequences.tolist(), expected.sequences_scores.tolist(), strict=True
        ):
            written = [*hypothesis.tokens, EOS] if hypothesis.finished else [*hypothesis.tokens]
            assert len(written) == hypothesis.chosen
            # Hugging Face pads beams with the end token where the padding token's id is 0.
            padding = [EOS] * (len(sequence) - 1 - len(written))
            assert [START, *written, *padding] == sequence
            assert hypothesis.sum_logprob / hypothesis.chosen ** options["length_penalty"] == pytest.approx(
                score, rel=1e-6
            )


@pytest.fixture(scope="module")
def models(pair: Pair, gated_pair: Pair) -> dict[str, Model]:
    folders = {"plain": pair.generator, "gated": gated_pair.generator}
    return {name: Model(T5ForConditionalGeneration.from_pretrained(folder)) for name, folder in folders.items()}


def prompts(vocabulary: int, count: int) -> list[torch.Tensor]:
    torch.manual_seed(11)
    return [torch.randint(2, vocabulary, (1, length)) for length in range(3, 3 + 4 * count, 4)]


# Texts end now and then (0.4 and 4), often (0.8 and 5), at once (12).
@pytest.mark.parametrize(("kind", "bias"), [("plain", 0.4), ("plain", 0.8), ("gated", 4), ("gated", 5), ("gated", 12)])
@pytest.mark.parametrize("num_beams", [2, 3, 4, 8])
def test_texts_and_scores_are_those_of_hugging_face(
    models: dict[str, Model], kind: str, bias: float, num_beams: int
) -> None:
    model = models[kind]
    with model.ending(bias):
        for prompt in prompts(model.t5.config.vocab_size, 2):
            logprobs = model.logprobs(prompt)
            for penalty, length in itertools.product([0.0, 0.6, 1.0, 2.0, -1.0], [7, 24]):
                model.check(
                    prompt,
                    logprobs,
                    num_beams=num_beams,
                    num_return_sequences=num_beams,
                    max_length=length,
                    length_penalty=penalty,
                )


@pytest.mark.parametrize("length", [1, 2, 24])
@pytest.mark.parametrize("bias", [0.0, 0.4])
def test_any_number_of_returned_sequences_and_length(models: dict[str, Model], length: int, bias: float) -> None:
    model = models["plain"]
    (prompt,) = prompts(model.t5.config.vocab_size, 1)
    with model.ending(bias):
        logprobs = model.logprobs(prompt)
        for num_beams, wanted in [(2, 1), (3, 1), (3, 2), (3, 3), (8, 5)]:
            model.check(
                prompt,
                logprobs,
                num_beams=num_beams,
                num_return_sequences=wanted,
                max_length=length,
                length_penalty=1.0,
            )


@pytest.mark.parametrize("vocabulary", [10, 13])
def test_a_vocabulary_with_fewer_candidates_than_asked_for(vocabulary: int) -> None:
    torch.manual_seed(2)
    t5 = T5ForConditionalGeneration(
        T5Config(
            vocab_size=vocabulary, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0
        )
    )
    enliven(t5)
    model = Model(t5)
    for prompt in prompts(vocabulary, 3):
        for penalty, length in itertools.product([1.0, -1.0], [1, 9]):
            model.check(
                prompt,
                model.logprobs(prompt),
                num_beams=8,
                num_return_sequences=8,
                max_length=length,
                length_penalty=penalty,
            )


# Any model -----------------------------------------------------------------------------------------------------------


def random_model(seed: int, vocabulary: int, end: float = 0.0) -> LogProbs:
    """A model whose next token depends on the two before it; ``end`` makes the end token likelier."""
    logits = np.random.default_rng(seed).normal(0, 2, (vocabulary + 1, vocabulary + 1, vocabulary))
    logits[..., EOS] += end
    table = (logits - np.log(np.exp(logits).sum(-1, keepdims=True))).astype(np.float32)
    return lambda prefix: table[tuple((-1, -1, *prefix)[-2:])]


def replayed(logprobs: LogProbs, hypothesis: Hypothesis) -> float:
    tokens = [*hypothesis.tokens, EOS][: hypothesis.chosen]
    return sum(float(logprobs(tuple(tokens[:i]))[token]) for i, token in enumerate(tokens))


@given(
    seed=st.integers(0, 2**32),
    vocabulary=st.integers(2, 40),
    end=st.floats(-3, 5),
    num_beams=st.integers(2, 8),
    max_length=st.integers(1, 12),
    length_penalty=st.floats(-2, 3),
    stop_after=st.integers(0, 12),
)
def test_hypotheses_are_ranked_distinct_and_scored_by_the_model_whenever_they_are_asked_for(
    seed: int,
    vocabulary: int,
    end: float,
    num_beams: int,
    max_length: int,
    length_penalty: float,
    stop_after: int,
) -> None:
    logprobs = random_model(seed, vocabulary, end)
    search = BeamSearch(
        num_beams=num_beams,
        num_return_sequences=num_beams,
        max_length=max_length,
        length_penalty=length_penalty,
        eos_id=EOS,
    )
    prefixes: list[tuple[int, ...]] = [()] * num_beams
    steps = 0
    while not search.finished and steps < stop_after:
        parents = search.advance(*candidates(logprobs, prefixes, 2 * num_beams))
        assert len(parents) == num_beams
        assert EOS not in search.last_tokens_K
        prefixes = [(*prefixes[p], int(t)) for p, t in zip(parents, search.last_tokens_K, strict=True)]
        steps += 1
    assert steps <= max_length
    found = search.hypotheses()
    if steps and vocabulary > num_beams:
        assert len({h.tokens for h in found}) == len(found) == num_beams
    for hypothesis in found:
        assert hypothesis.sum_logprob == pytest.approx(replayed(logprobs, hypothesis), abs=1e-3)
        assert hypothesis.chosen == len(hypothesis.tokens) + hypothesis.finished <= max_length
        if not hypothesis.finished:
            assert hypothesis.chosen == steps  # it was cut where the search stands
    ended = [h.finished or h.chosen == max_length for h in found]
    assert ended == sorted(ended, reverse=True)
    for alike in (True, False):
        scores = [
            h.sum_logprob / max(h.chosen, 1) ** length_penalty for h, e in zip(found, ended, strict=True) if e is alike
        ]
        assert scores == pytest.approx(sorted(scores, reverse=True), rel=1e-5)


@given(st.integers(0, 2**32), st.floats(-2, 3))
def test_with_a_beam_for_every_text_the_ranking_is_that_of_all_texts(seed: int, penalty: float) -> None:
    logprobs = random_model(seed, vocabulary=3)
    search = searched(logprobs, num_beams=8, num_return_sequences=8, max_length=2, length_penalty=penalty, eos_id=EOS)
    texts = [(EOS,), *itertools.product((0, 2), (0, EOS, 2))]

    def score(text: tuple[int, ...]) -> float:
        return sum(float(logprobs(text[:i])[token]) for i, token in enumerate(text)) / len(text) ** penalty

    found = [(*h.tokens, EOS)[: h.chosen] for h in search.hypotheses()]
    assert sorted(found) == sorted(texts)
    assert [score(t) for t in found] == pytest.approx(sorted(map(score, texts), reverse=True), rel=1e-5)


def test_before_the_first_step_every_hypothesis_is_empty() -> None:
    search = BeamSearch(num_beams=4, num_return_sequences=3, max_length=5, length_penalty=1.0, eos_id=EOS)
    assert search.hypotheses() == [Hypothesis((), 0.0, 0, False)] * 3


def test_the_end_token_of_a_worse_candidate_is_no_hypothesis() -> None:
    search = BeamSearch(num_beams=2, num_return_sequences=2, max_length=5, length_penalty=1.0, eos_id=EOS)
    search.advance(np.array([[7, 8, EOS, 9]] * 2), np.log(np.array([[0.4, 0.3, 0.2, 0.1]] * 2, dtype=np.float32)))
    assert [h.tokens for h in search.hypotheses()] == [(7,), (8,)]
    assert search.last_tokens_K.tolist() == [7, 8]


def test_a_search_that_is_over_takes_no_step() -> None:
    search = searched(
        random_model(1, 20), num_beams=2, num_return_sequences=1, max_length=3, length_penalty=1.0, eos_id=EOS
    )
    with pytest.raises(RuntimeError, match="over"):
        search.advance(np.zeros((2, 4), dtype=np.int64), np.zeros((2, 4), dtype=np.float32))


@pytest.mark.parametrize("wrong", [{"num_beams": 1}, {"num_return_sequences": 5}, {"max_length": 0}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    options: dict[str, Any] = {"num_beams": 4, "num_return_sequences": 1, "max_length": 9, **wrong}
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BeamSearch(length_penalty=1.0, eos_id=EOS, **options)
