"""What is special about a gateway: how it is recognised, its keys, rates and errors. All else is in
test_client_behaviour.py."""

import asyncio
import json
import time

import httpx2
import pytest

from neuro_latent_client import (
    AccessDeniedError,
    AsyncClient,
    Client,
    DeadlineError,
    InvalidRequestError,
    NeuroLatentError,
    ServerError,
    ServerUnavailableError,
)
from neuro_latent_serving.gateway.api_keys import add_key
from neuro_latent_serving.gateway.config import GatewayConfig
from neuro_latent_serving.gateway.server import GatewayServer
from tests.unit.serving.gateway.conftest import logged

pytestmark = pytest.mark.slow


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def start(script, log):
    """Starts a gateway with the given settings; its address."""
    servers = []

    def make(**settings):
        config = GatewayConfig(port=0, log_file=log, **settings)
        servers.append(GatewayServer(config, lambda: script.async_client(retries=0, timeout=config.timeout)))
        servers[-1].start()
        return servers[-1].url

    yield make
    for server in servers:
        server.stop(lambda: True)


def test_it_is_recognised_once_and_before_a_prompt_is_sent(start, log):
    with Client(start()) as client:
        answers = [client.optimize("x"), client.optimize("x")]
        assert client.feedback(answers[0], 1).created
    assert [answer.transport for answer in answers] == ["rest", "rest"]
    lines = logged(log, count=4)
    assert [(line["method"], line["route"], line["status"]) for line in lines] == [
        ("GET", "other", 404),
        ("POST", "/optimize", 200),
        ("POST", "/optimize", 200),
        ("POST", "/feedback", 201),
    ]
    assert [line["answer"] for line in lines[1:3]] == [answer.request_id for answer in answers]


def test_keys(start, script, tmp_path):
    keys = tmp_path / "keys"
    key = add_key(keys, "ann")
    url = start(api_keys=keys)
    for wrong in ("nl_wrong", None):
        with Client(url, api_key=wrong) as client:
            for call in (lambda: client.optimize("x"), lambda: list(client.stream("x")), client.adapters):
                with pytest.raises(AccessDeniedError, match="API key"):
                    call()
            assert client.health().ready  # it wants no key
    with Client(url, api_key=key) as client:
        client.feedback(client.optimize("x"), -1)
        assert client.adapters()
        with pytest.raises(AccessDeniedError, match="gives feedback for ann only"):
            client.feedback("id", 1, raw_prompt="x", enhanced_prompt="y", user="bob")
    assert next(iter(script.feedback.values()))["user"] == "ann"


def test_a_rate_is_waited_for_where_there_is_time(start):
    url = start(rate=60)
    with httpx2.Client(base_url=url, trust_env=False) as raw, Client(url) as client:
        while raw.post("/feedback", json={}).status_code != 429:
            pass
        begun = time.monotonic()
        with pytest.raises(ServerUnavailableError, match=r"more than 60 requests a minute.* in 1 s") as caught:
            client.optimize("x", timeout=0.5)
        assert (caught.value.retry_after_s, time.monotonic() - begun < 0.5) == (1, True)
        assert client.optimize("x", timeout=10).added
        assert time.monotonic() - begun >= 1

        async def main():
            while raw.post("/feedback", json={}).status_code != 429:
                pass
            async with AsyncClient(url) as own:
                return await own.optimize("x", timeout=10)

        assert asyncio.run(main()).added


@pytest.mark.parametrize(
    ("failure", "expected", "words"),
    [
        (("invalid", "max_length: 0 is not in 1..512"), InvalidRequestError, "^max_length: 0 is not in"),
        (("busy", "the queue is full"), ServerUnavailableError, "busy or not ready"),
        (("internal", "boom"), ServerError, "the server failed"),
        (("not found", "unknown model"), ServerUnavailableError, "not ready"),
    ],
)
def test_its_problems_are_the_errors_of_the_package(start, script, log, failure, expected, words):
    script.fail(*failure, times=9)
    ids = []
    with Client(start(), retries=0) as client:
        for call in (client.optimize, lambda prompt: list(client.stream(prompt))):
            with pytest.raises(NeuroLatentError, match=words) as caught:
                call("x")
            assert type(caught.value) is expected
            ids.append(caught.value.request_id)
    assert [line["request_id"] for line in logged(log, count=3)[1:]] == ids


def test_wrong_options_are_named(start):
    with Client(start()) as client, pytest.raises(InvalidRequestError, match=r"max_length: .* less than or equal to"):
        client.optimize("x", max_length=5000)


def test_its_own_deadline(start, script):
    script.delay_s = 1
    with Client(start(timeout=0.2)) as client, pytest.raises(DeadlineError):
        client.optimize("x")


def test_what_it_cannot_do(start):
    with Client(start()) as client:
        for call in (client.models, client.load_adapters):
            with pytest.raises(InvalidRequestError, match=r"is a gateway, .*give the address of the Triton"):
                call()


@pytest.mark.parametrize("change", [{"live": False}, {"ready": False}, {"models": []}])
def test_health(start, script, change):
    with Client(start()) as client:
        health = client.health()
        assert (health.live, health.ready, health.problem, health.model_version) == (True, True, "", None)
        vars(script).update(change)
        health = client.health()
    assert (health.live, health.ready) == (True, False)
    assert "the models are not ready" in health.problem or "the server cannot be reached" in health.problem


def test_the_default_address_is_that_of_the_environment(start, monkeypatch):
    monkeypatch.setenv("NEURO_LATENT_URL", start())
    with Client() as client:
        answer = client.optimize("x")
    assert answer.transport == "rest"
    assert json.loads(json.dumps(answer.to_dict()))["sequences"][0]["added"] == "Well: 0"
    monkeypatch.delenv("NEURO_LATENT_URL")
    assert "grpc://127.0.0.1:8001" in repr(Client())
