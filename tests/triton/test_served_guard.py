"""The guard on a real server: a rewrite keeps the prompt's literals and is readable, or the prompt comes back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from neuro_latent_client import Client
from neuro_latent_core.guard import rejects
from neuro_latent_core.guard.sentences import whole_sentences
from neuro_latent_serving.launch import FREE_PORTS, ServerConfig, TritonServer
from neuro_latent_trainer.model import PromptOptimizer
from tests.triton.wire import TIMEOUT

pytestmark = pytest.mark.server

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


def test_a_rewrite_that_breaks_a_rule_is_withheld_and_a_stream_is_one_piece(
    guarded: TritonServer, oracle: PromptOptimizer
) -> None:
    written = oracle.generate(RAW, TOKENS)
    assert any(rejects(raw, text, "rewrite") for raw, text in zip(RAW, written, strict=True)), "the tiny model fails"
    for url in (guarded.grpc_url, guarded.http_url):
        with Client(url, timeout=TIMEOUT) as client:
            for raw, text in zip(RAW, written, strict=True):
                answer = client.optimize(raw, max_length=TOKENS)
                with client.stream(raw, max_length=TOKENS) as stream:
                    (piece,) = stream
                assert piece.text == stream.result.text == answer.text
                served = text if answer.generated_tokens < TOKENS else whole_sentences(text)
                reason = rejects(raw, served, "rewrite") if served else "unfinished"
                assert answer.reason == reason
                assert answer.text == (raw if reason else served)
                assert (answer.finish_reason == "withheld") == bool(reason)
