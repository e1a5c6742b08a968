"""A server with one slot and a short queue: what happens when it is full, and when those who fill it go away."""

import json
import re
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx2
import numpy as np
import pytest

from neuro_latent_client import Client, DeadlineError, ServerUnavailableError
from neuro_latent_serving.gateway.config import GatewayConfig
from neuro_latent_serving.gateway.server import GatewayServer, triton_client
from neuro_latent_serving.launch import FREE_PORTS, ServerConfig, TritonServer
from neuro_latent_trainer.model import PromptOptimizer
from tests.triton import wire

pytestmark = pytest.mark.server

QUEUE = 40
PROMPT = "Create a function"
SOON = 4.0
"""Seconds: far more than a free slot needs to answer, far less than a full queue takes (40 texts of 512 tokens)."""


@pytest.fixture(scope="module")
def narrow(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    copy = tmp_path_factory.mktemp("narrow") / "repository"
    shutil.copytree(repository, copy)
    config = copy / "t5_decoder" / "config.pbtxt"
    text = config.read_text()
    for name, old, new in (("slots", 16, 1), ("queue", 128, QUEUE)):
        setting = f'key: "{name}", value {{ string_value: "%s" }}'
        assert setting % old in text
        text = text.replace(setting % old, setting % new)
    config.write_text(text)
    # What fills it may still be in it at the end.
    with TritonServer(
        copy, ServerConfig(ports=FREE_PORTS, drain_timeout=1, kill_after=1, environment=wire.PLAIN)
    ) as running:
        yield running


@pytest.fixture(params=["grpc", "http"])
def client(request: pytest.FixtureRequest, narrow: TritonServer) -> Iterator[Client]:
    url = {"grpc": narrow.grpc_url, "http": narrow.http_url}[request.param]
    with Client(url, timeout=wire.TIMEOUT, retries=0) as made:
        yield made


class Crowd(wire.RawStream):
    """Long requests straight to the decoder, as many as it takes; they are cancelled at the end."""

    def __init__(self, server: TritonServer, oracle: PromptOptimizer) -> None:
        super().__init__(server)
        rng = np.random.default_rng(0)
        self._inputs = wire.inputs(
            wire.tritonclient.grpc,
            {
                "encoder_hidden_states": wire.Tensor("FP32", rng.normal(size=(1, 9, oracle.generator.width))),
                "t5_mask": wire.Tensor("INT64", [[1] * 4]),
                "raw_prompt": PROMPT,
                "truncated": wire.Tensor("BOOL", [[False]]),
                "arrived_ns": wire.Tensor("INT64", [[2**62]]),  # a time to come is nobody's
                "gate": wire.Tensor("FP32", [[10.0, 0.0, 0.0, 0.0]]),
                "options": wire.Tensor("BYTES", [[json.dumps({"max_length": 512})]]),
            },
        )

    def fill(self) -> str:
        """Send requests until one is refused; the refusal."""
        for _ in range(QUEUE + 12):  # some may be done before the last is sent
            self.send("t5_decoder", self._inputs)
        while True:
            _, error = self.arrived.get(timeout=wire.TIMEOUT)
            if error is not None:
                return str(error)


def refused(crowd: Crowd, ask: Callable[[], object]) -> bool:
    """Whether a request is refused while the crowd is there. A slot may become free in between, hence several times."""
    for _ in range(20):
        crowd.fill()
        try:
            ask()
        except ServerUnavailableError as error:
            return f"its queue holds {QUEUE} requests already; try again later" in str(error)
    return False


def test_a_full_queue_refuses_and_cancelling_the_decoders_requests_empties_it(
    narrow: TritonServer, client: Client, oracle: PromptOptimizer
) -> None:
    with Crowd(narrow, oracle) as crowd:
        assert "its queue holds" in crowd.fill()
        # With deadline_ms a request that is let in after all does not wait for its turn.
        assert refused(crowd, lambda: client.optimize(PROMPT, deadline_ms=1))
        assert refused(crowd, lambda: list(client.stream(PROMPT, deadline_ms=1)))
    # A cancellation takes a moment to arrive; until then the queue is still full.
    limit = time.monotonic() + SOON
    while True:
        try:
            answer = client.optimize(PROMPT, max_length=8, timeout=SOON)
            break
        except ServerUnavailableError:
            assert time.monotonic() < limit, "the queue does not empty"
            time.sleep(0.05)
    time.sleep(1.5)  # the engine tells Triton its counters now and then
    with urllib.request.urlopen(narrow.metrics_url) as metrics:
        (seconds,) = re.findall(r"^neuro_latent_request_encode_seconds_total{.*} (\S+)$", metrics.read().decode(), re.M)
    assert 0 < float(seconds) < 600
    assert answer.text == oracle.generate([PROMPT], 8)[0]


def wait_until_they_decode(narrow: TritonServer) -> None:
    """Until the step before the decoder has done as many requests as fill the queue: a cancelled one stops there."""
    limit = time.monotonic() + wire.TIMEOUT
    with wire.tritonclient.http.InferenceServerClient(narrow.http_address, network_timeout=wire.TIMEOUT) as triton:
        before = -1
        while time.monotonic() < limit:
            (statistics,) = triton.get_inference_statistics("t5_encoder")["model_stats"]
            done = int(statistics["inference_count"])
            if done == before and done >= QUEUE:
                return
            before = done
            time.sleep(0.2)
    raise TimeoutError("the requests did not reach the decoder")


def test_streams_that_were_left_free_their_slots(narrow: TritonServer, client: Client) -> None:
    streams = [client.stream(PROMPT, max_length=512) for _ in range(QUEUE)]
    wait_until_they_decode(narrow)
    for stream in streams:
        stream.close()
    client.optimize(PROMPT, max_length=1, timeout=SOON)


def test_unary_requests_whose_client_gave_up_free_their_slots(narrow: TritonServer, client: Client) -> None:
    for _ in range(8):
        with pytest.raises(DeadlineError):
            client.optimize(PROMPT, max_length=512, timeout=0.015)
    client.optimize(PROMPT, max_length=1, timeout=SOON)


@pytest.fixture(scope="module")
def rest(narrow: TritonServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    config = GatewayConfig(port=0, log_file=tmp_path_factory.mktemp("gateway") / "log")
    with GatewayServer(config, lambda: triton_client(config, narrow.grpc_url)) as gateway:
        gateway.start()
        limits = httpx2.Limits(max_connections=None)
        with httpx2.Client(base_url=gateway.url, timeout=wire.TIMEOUT, limits=limits, trust_env=False) as made:
            yield made


def test_of_64_clients_at_the_gateway_all_are_answered(rest: httpx2.Client) -> None:
    body = {"raw_prompt": PROMPT, "max_length": 160, "temperature": 1.0}  # which no draft makes short
    paths = ["/optimize", "/optimize/stream"] * 64
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda path: rest.post(path, json=body), paths))
    assert {answer.status_code for answer in answers} == {200, 503}
    for path, answer in zip(paths, answers, strict=True):
        if answer.status_code == 503:
            assert answer.headers["retry-after"] == "1"
        else:
            assert (answer.text if path == "/optimize" else answer.text.rpartition("event: ")[2]).count(
                "enhanced_prompt"
            )


@pytest.mark.parametrize("path", ["/optimize", "/optimize/stream"])
def test_who_leaves_the_gateway_frees_the_slot(rest: httpx2.Client, path: str) -> None:
    body = {"raw_prompt": PROMPT, "max_length": 512}
    for _ in range(8):
        with suppress(httpx2.ReadTimeout), rest.stream("POST", path, json=body, timeout=0.015) as response:
            assert path == "/optimize/stream", "the whole text takes longer"
            next(response.iter_raw())
    assert rest.post("/optimize", json={"raw_prompt": PROMPT, "max_length": 1}, timeout=SOON).status_code == 200
