"""A fine-tuned T5 served alone: every token is Hugging Face's, and the rest is as with an adapter."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, DynamicCache, EncoderDecoderCache, T5ForConditionalGeneration

from neuro_latent_client import Client, NeuroLatentError
from neuro_latent_serving.launch import FREE_PORTS, ServerConfig, TritonServer
from tests import tiny
from tests.triton.wire import TIMEOUT

pytestmark = pytest.mark.server

TOKENS = 24


@pytest.fixture(scope="module")
def plain(plain_repository: Path) -> Iterator[Client]:
    """Served with nothing switched off: the repository itself says that there is no guard."""
    config = ServerConfig(ports=FREE_PORTS, drain_timeout=3)
    with TritonServer(plain_repository, config) as server, Client(server.grpc_url, timeout=TIMEOUT) as client:
        yield client


@torch.no_grad()
def by_hugging_face(generator: Path, prompt: str, **options: Any) -> list[str]:
    tokenizer, t5 = AutoTokenizer.from_pretrained(generator), T5ForConditionalGeneration.from_pretrained(generator)
    rows = t5.generate(
        tokenizer(tiny.PREFIX + prompt, return_tensors="pt").input_ids,
        max_new_tokens=TOKENS,
        do_sample=False,
        past_key_values=EncoderDecoderCache(DynamicCache(), DynamicCache()),
        **options,
    )
    return [text.strip() for text in tokenizer.batch_decode(rows, skip_special_tokens=True)]


def test_greedy_texts_of_many_at_once_are_those_of_hugging_face(
    plain: Client, gated_pair: Any, prompts: list[str]
) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = [*pool.map(lambda prompt: plain.optimize(prompt, max_length=TOKENS), prompts)]
    expected = [by_hugging_face(gated_pair.generator, prompt)[0] for prompt in prompts]
    assert [answer.text for answer in answers] == expected
    assert len(set(expected)) > len(prompts) // 2, "the random T5 must write different texts"
    assert {sequence.added for answer in answers for sequence in answer.sequences} == {""}
    assert {sequence.reason for answer in answers for sequence in answer.sequences} == {""}
    again = [plain.optimize(prompt, max_length=TOKENS).text for prompt in prompts[:4]]  # drafted from what was written
    assert again == expected[:4]


def test_beams_are_those_of_hugging_face(plain: Client, gated_pair: Any, prompts: list[str]) -> None:
    for prompt in prompts[:4]:
        answer = plain.optimize(prompt, max_length=TOKENS, num_beams=4, num_return_sequences=3)
        expected = by_hugging_face(
            gated_pair.generator, prompt, num_beams=4, num_return_sequences=3, early_stopping=False
        )
        assert [sequence.text for sequence in answer.sequences] == expected


def test_a_stream_comes_as_it_is_written(plain: Client, prompts: list[str]) -> None:
    options = {"temperature": 1.0, "seed": 7, "max_length": TOKENS}  # sampled: a greedy text may be drafted whole
    with plain.stream(prompts[0], **options) as stream:
        pieces = [piece.text for piece in stream if piece.text]
    assert "".join(pieces) == plain.optimize(prompts[0], **options).text
    assert len(pieces) > 1


def test_sampled_texts_are_repeatable(plain: Client, prompts: list[str]) -> None:
    options = {"temperature": 1.0, "num_return_sequences": 3, "seed": 7, "max_length": TOKENS}
    first, second = ([s.text for s in plain.optimize(prompts[0], **options).sequences] for _ in range(2))
    assert first == second
    assert len(set(first)) > 1


def test_a_request_that_names_an_adapter_is_told_that_there_is_none(plain: Client) -> None:
    with pytest.raises(NeuroLatentError, match="adapter must be left out: the server has a T5 that writes by itself"):
        plain.optimize("Create a function", adapter="team")


def test_a_prompt_longer_than_the_t5_reads_is_answered_and_marked(plain: Client) -> None:
    assert plain.optimize("Create a function that sorts. " * 400, max_length=4).truncated
    assert not plain.optimize("Create a function", max_length=4).truncated
