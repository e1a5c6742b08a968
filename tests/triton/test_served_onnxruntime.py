"""A repository for Triton's onnxruntime backend answers as the python one does; both are served at once.

The wheel has no such backend, so Python's ONNX Runtime stands in, which is as strict with the configurations.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from neuro_latent_client import Client, InvalidRequestError, Optimization, ServedAdapter
from neuro_latent_serving.launch import FREE_PORTS, ServerConfig, TritonServer
from tests.triton import wire

pytestmark = pytest.mark.server

CLIENTS = 16
OPTIONS: tuple[dict[str, Any], ...] = (
    {"max_length": 32},
    {"max_length": 12, "temperature": 0.8, "top_k": 20, "seed": 7, "num_return_sequences": 3},
    {"max_length": 16, "num_beams": 3},
)


@pytest.fixture(scope="module")
def other(onnxruntime_repository: Path) -> Iterator[TritonServer]:
    config = ServerConfig(ports=FREE_PORTS, drain_timeout=3, environment=wire.PLAIN)
    with TritonServer(onnxruntime_repository, config) as running:
        yield running


def answer(result: Optimization) -> tuple[Any, ...]:
    """What a caller reads of an answer."""
    texts = tuple(
        (text.text, text.added, round(text.score, 4), text.generated_tokens, text.finish_reason, text.reason)
        for text in result.sequences
    )
    return result.model_version, result.truncated, texts


def answers(client: Client, prompts: list[str]) -> list[tuple[Any, ...]]:
    """The answers to prompts of mixed lengths with all options, asked by many clients at once."""
    asked = [(prompt, options) for prompt in prompts for options in OPTIONS]
    with ThreadPoolExecutor(CLIENTS) as pool:
        return [answer(result) for result in pool.map(lambda ask: client.optimize(ask[0], **ask[1]), asked)]


def test_texts_are_those_of_the_python_repository(grpc: Client, other: TritonServer, prompts: list[str]) -> None:
    mixed = [*prompts, *(" ".join(prompts[:n]) for n in (2, 4, 8, 16))]
    with Client(other.grpc_url, timeout=wire.TIMEOUT) as client:
        got, expected = answers(client, mixed), answers(grpc, mixed)
    assert got == expected
    assert len(set(got)) > 60


@pytest.mark.parametrize("route", ["grpc infer", "http generate"])
def test_batches_and_streams_are_those_of_the_python_repository(
    server: TritonServer, other: TritonServer, prompts: list[str], route: str
) -> None:
    values = {"raw_prompt": prompts[:5], "max_length": [16] * 5}
    assert wire.ask(other, route, values)[0]["enhanced_prompt"] == wire.ask(server, route, values)[0]["enhanced_prompt"]
    stream = {"raw_prompt": prompts[0], "max_length": 16}
    pieces = [wire.ask(asked, "grpc stream", stream) for asked in (other, server)]
    assert len({"".join(piece["enhanced_prompt"][0] for piece in answered) for answered in pieces}) == 1
    assert {piece["adapter_version"][0] for answered in pieces for piece in answered} == {
        piece["model_version"][0] for piece in pieces[1]
    }


def test_one_adapter_is_known(other: TritonServer) -> None:
    with Client(other.grpc_url, timeout=wire.TIMEOUT) as client:
        answer = client.optimize("Create a function", max_length=8, adapter="default")
        assert client.adapters() == (ServedAdapter("default", answer.model_version),)
        with pytest.raises(InvalidRequestError, match="adapter 'team' is not known here; known are default"):
            client.optimize("Create a function", adapter="team")


def test_the_log_says_what_runs_the_graphs(other: TritonServer) -> None:
    assert other.log_text().count("this Triton has no onnxruntime backend") == 3
