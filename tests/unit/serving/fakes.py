"""A language, and a decoder that writes it: what the scheduler is tested with, without a model.

The next token is a function of the prompt and of the text so far, and the decoder knows both only from its cache. So a
text is right only if its row was never mixed up with another one.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from neuro_latent_core.options import RequestOptions
from neuro_latent_serving.engine.beams import BeamSearch, Hypothesis
from neuro_latent_serving.engine.cache import SlotCache
from neuro_latent_serving.engine.contract import StepResult
from neuro_latent_serving.engine.sampling import Sampler

START, EOS, VOCABULARY = 0, 1, 24
SELF, CROSS = "past_key_values.0.decoder.key", "past_key_values.0.encoder.key"

Prompt = tuple[int, ...]


@functools.lru_cache(maxsize=100_000)
def logprobs(prompt: Prompt, text: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Of the next token, [V]. Mostly the last two tokens decide, so that texts repeat themselves and drafts are often
    right; now and then everything before."""
    everything = hash((prompt, text))
    seed = everything if everything % 7 == 0 else hash((prompt, text[-2:]))
    logits = np.random.default_rng(seed % 2**32).normal(0, 2, VOCABULARY)
    logits[EOS] += 1.0 if everything % 5 == 0 else -4.0
    logits -= np.log(np.exp(logits).sum())
    return logits.astype(np.float32)


def greedy(prompt: Prompt, max_length: int) -> list[int]:
    """The text without its end token."""
    text: list[int] = []
    while len(text) < max_length and (token := int(logprobs(prompt, tuple(text)).argmax())) != EOS:
        text.append(token)
    return text


def sampled(prompt: Prompt, options: RequestOptions, index: int) -> list[int]:
    """The text of one of a request's sequences."""
    assert options.seed is not None
    sampler, text = Sampler(options, options.seed, index), list[int]()
    while len(text) < options.max_length and (token := sampler.draw(logprobs(prompt, tuple(text)))[0]) != EOS:
        text.append(token)
    return text


def best(rows: Sequence[np.ndarray[Any, Any]], count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The ``count`` best tokens of each row, best first, and their log-probabilities."""
    tokens = np.argsort(-np.stack(rows), axis=-1, kind="stable")[:, :count]
    return tokens, np.take_along_axis(np.stack(rows), tokens, axis=-1)


def searched(prompt: Prompt, options: RequestOptions) -> list[Hypothesis]:
    """What a beam search finds."""
    search = BeamSearch(
        num_beams=options.num_beams,
        num_return_sequences=options.num_return_sequences,
        max_length=options.max_length,
        length_penalty=options.length_penalty,
        eos_id=EOS,
    )
    texts: list[tuple[int, ...]] = [()] * options.num_beams
    while not search.finished:
        parents = search.advance(*best([logprobs(prompt, text) for text in texts], VOCABULARY))
        texts = [(*texts[p], int(t)) for p, t in zip(parents, search.last_tokens_K, strict=True)]
    return search.hypotheses()


def right_texts(prompt: Prompt, options: RequestOptions) -> list[list[int]]:
    """The tokens of all texts that a request must get."""
    if options.num_beams > 1:
        return [list(hypothesis.tokens) for hypothesis in searched(prompt, options)]
    if options.greedy:
        return [greedy(prompt, options.max_length)]
    return [sampled(prompt, options, i) for i in range(options.num_return_sequences)]


class FakeDecoder:
    """Stands in for :class:`Decoder`, with a real cache that holds one number a column."""

    width, most_encoder_tokens = 1, 2048

    def __init__(self, slots: int) -> None:
        self.cache = SlotCache(slots, 1, 1, [SELF], [CROSS])
        self.prefilled: list[Prompt] = []
        self.stepped: list[tuple[int, int]] = []
        self.before_step: Callable[[np.ndarray[Any, Any]], None] = lambda tokens_BW: None

    def join(self, hidden_QD: np.ndarray[Any, Any], mask_Q: np.ndarray[Any, Any], copies: int) -> range:
        self.prefilled.append(tuple(int(x) for x in hidden_QD[:, 0]))
        if hidden_QD[0, 0] < 0:
            raise MemoryError("no prefill for this prompt")
        return self.cache.join([hidden_QD[None, None]], mask_Q, copies)

    def step(
        self, tokens_BW: np.ndarray[Any, Any], with_candidates: bool = False, with_logprobs: bool = False
    ) -> StepResult:
        rows, width = tokens_BW.shape
        assert rows == self.cache.rows > 0
        assert 1 <= width <= 8
        self.before_step(tokens_BW)
        self.stepped.append((rows, width))
        self.cache.fit(width)
        tensors = dict(self.cache.tensors())
        own, cross, mask_BQ = tensors[SELF][:, 0, :, 0], tensors[CROSS][:, 0, :, 0], self.cache.encoder_mask_BQ
        distributions = np.zeros((rows, width, VOCABULARY), dtype=np.float32)
        for b, length in enumerate(self.cache.lengths_B.tolist()):
            own[b, length : length + width] = tokens_BW[b]
            prompt = tuple(int(x) for x in cross[b][mask_BQ[b] == 1])
            for w in range(width):
                start, *text = (int(x) for x in own[b, : length + w + 1])
                assert start == START
                distributions[b, w] = logprobs(prompt, tuple(text))
        flat = list(distributions.reshape(rows * width, VOCABULARY))
        tokens, values = best(flat, VOCABULARY if with_candidates else 0)
        return StepResult(
            next_token_BW=distributions.argmax(-1),
            next_logprob_BW=distributions.max(-1),
            candidate_tokens_BWC=tokens.reshape(rows, width, -1),
            candidate_logprobs_BWC=values.reshape(rows, width, -1),
            logprobs_BWV=distributions if with_logprobs else None,
        )


class FakeDetokenizer:
    """A token's text is its number; spaces stand between them."""

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))

    def encode(self, text: str, most: int) -> list[int]:
        return [int(word) for word in text.split()][:most]

    def stream(self) -> "FakeStream":
        return FakeStream()


class FakeStream:
    """Text piece by piece."""

    def __init__(self) -> None:
        self.text = ""

    def push(self, token: int) -> str:
        piece = f" {token}" if self.text else str(token)
        self.text += piece
        return piece
