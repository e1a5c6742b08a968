"""The guard on a real server: every answer keeps the prompt's literals, streamed or not, and is readable."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from neuro_latent_client import Client
from neuro_latent_client.guard import is_degenerate, missing
from neuro_latent_serving.server import FREE_PORTS, ServerConfig, TritonServer
from neuro_latent_trainer.model import PromptOptimizer
from tests.triton.wire import TIMEOUT

pytestmark = pytest.mark.triton

TOKENS = 24
RAW = [
    "Name 3 rivers in {country}",
    'Explain `x += 1` to "beginners" at https://a.org/b',
    "Write a poem",
    "hello",
]


@pytest.fixture(scope="module")
def guarded(repository: Path) -> Iterator[TritonServer]:
    with TritonServer(repository, ServerConfig(ports=FREE_PORTS, drain_timeout=1, kill_after=1)) as running:
        yield running


def test_what_the_model_loses_is_added_or_the_prompt_stands(guarded: TritonServer, oracle: PromptOptimizer) -> None:
    written = oracle.generate(RAW, TOKENS)
    assert any(missing(raw, text) for raw, text in zip(RAW, written, strict=True)), "the tiny model loses literals"
    for url in (guarded.grpc_url, guarded.http_url):
        with Client(url, timeout=TIMEOUT) as client:
            for raw, text in zip(RAW, written, strict=True):
                answer = client.optimize(raw, max_length=TOKENS)
                with client.stream(raw, max_length=TOKENS) as stream:
                    shown = ""
                    for piece in stream:
                        shown = piece.text if piece.replaces else shown + piece.text
                assert shown == stream.result.text == answer.text
                assert missing(raw, answer.text) == []
                if answer.finish_reason == "fallback":
                    assert answer.text == raw
                else:
                    assert answer.text.startswith(text.rstrip())
                    assert not is_degenerate(answer.text)
