"""The gateway as OpenAI's server, asked by the package ``openai``; in front of a real upstream too."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx2
import openai
import pytest

from neuro_latent_client import chat
from neuro_latent_client.testing import FakeServer
from neuro_latent_serving.errors import UsageError
from neuro_latent_serving.gateway.api_keys import add_key
from neuro_latent_serving.gateway.config import GatewayConfig
from neuro_latent_serving.gateway.openai import upstream as upstreams
from tests.unit.serving.gateway.conftest import Start, logged
from tests.unit.serving.gateway.upstream import Upstream, running

RAW, BETTER = "Create a function", "Create a function\n\nIn Python."

ASKED = [{"role": "user", "content": RAW}]

Ask = Callable[..., openai.OpenAI]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with running(Upstream()) as server:
        yield server


@pytest.fixture
def ask(start: Start, stack: ExitStack) -> Ask:
    """A client of OpenAI's of a gateway with the given settings."""

    def make(key: str = "sk-caller", **settings: Any) -> openai.OpenAI:
        rest = start(**settings)
        client = openai.OpenAI(base_url=f"{rest.base_url}/v1", api_key=key, max_retries=0, timeout=20)
        return stack.enter_context(client)

    return make


def say(client: openai.OpenAI, text: Any = RAW, model: str = "large", **more: Any) -> Any:
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], **more)


# The better prompt itself --------------------------------------------------------------------------------------------


def test_our_own_model_answers_with_a_better_prompt(ask: Ask) -> None:
    client = ask()
    found = say(client, model="neuro-latent", max_tokens=50, user="somebody")
    assert found.choices[0].message.content == BETTER
    assert (found.choices[0].finish_reason, found.usage.completion_tokens) == ("stop", 2)
    assert [model.id for model in client.models.list()] == ["neuro-latent", "neuro-latent/default"]


def test_it_streams(ask: Ask) -> None:
    chunks = list(say(ask(), model="neuro-latent", stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == BETTER
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage.completion_tokens == 2


def test_it_answers_responses(ask: Ask) -> None:
    assert ask().responses.create(model="neuro-latent", input=RAW).output_text == BETTER


def test_the_adapter_and_the_options_are_those_of_the_request(ask: Ask, triton: FakeServer) -> None:
    triton.adapters = {"default": "v1", "team": "v2"}
    say(ask(), model="neuro-latent/team", temperature=1, n=2, max_completion_tokens=7, seed=3)
    asked = triton.requests[-1].inputs
    assert (asked["adapter"], asked["max_length"], asked["num_return_sequences"]) == ("team", 7, 2)
    assert (asked["temperature"], asked["seed"]) == (1, 3)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"model": "neuro-latent", "messages": []}, 400, "no messages"),
        ({"model": "neuro-latent", "messages": [{"role": "assistant", "content": "x"}]}, 400, "not the user's turn"),
        ({"model": "neuro-latent", "messages": [{"role": "user", "content": []}]}, 400, "no text"),
        ({"model": "neuro-latent", "messages": [{"role": "user", "content": RAW}], "n": 99}, 422, "num_return"),
        (
            {"model": "neuro-latent", "messages": [{"role": "user", "content": RAW}], "max_tokens": "x"},
            422,
            "max_length",
        ),
        ({"model": "neuro-latent/no", "messages": [{"role": "user", "content": RAW}]}, 422, "known are default"),
        ({"model": "neuro-latent/../x", "messages": [{"role": "user", "content": RAW}]}, 422, "adapter"),
        ({"model": "gpt", "messages": [{"role": "user", "content": RAW}]}, 404, "--upstream URL"),
        ({"model": ["neuro-latent"]}, 404, "only neuro-latent"),
        ([], 404, "only neuro-latent"),
    ],
)
def test_wrong_requests_say_what_is_wrong(rest: httpx2.Client, body: Any, status: int, message: str) -> None:
    answer = rest.post("/v1/chat/completions", json=body)
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]


def test_a_body_that_is_no_json(rest: httpx2.Client) -> None:
    assert rest.post("/v1/chat/completions", content=b"{").status_code == 400
    assert rest.get("/v1/files").json()["error"]["message"].startswith("there is no such route")


def test_a_triton_that_is_away_is_a_503(ask: Ask, triton: FakeServer) -> None:
    triton.fail("busy", "the queue is full")
    with pytest.raises(openai.InternalServerError, match="busy"):
        say(ask(), model="neuro-latent")


# In front of an upstream ---------------------------------------------------------------------------------------------


def test_the_last_message_gets_its_complement_and_all_else_goes_on(ask: Ask, upstream: Upstream, log: Path) -> None:
    messages: list[Any] = [{"role": "system", "content": "Be brief.😀"}, {"role": "user", "content": RAW}]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    client = ask(upstream=upstream.url)
    found = client.chat.completions.with_raw_response.create(
        model="large", messages=messages, tools=tools, temperature=0.25, extra_body={"odd": [1, 2.5, None]},
        extra_headers={"X-Custom": "yes"}, extra_query={"api-version": "7"},
    )  # fmt: skip
    assert found.parse().choices[0].message.content == json.dumps(BETTER)
    messages[-1]["content"] = BETTER
    sent = {"model": "large", "messages": messages, "tools": tools, "temperature": 0.25, "odd": [1, 2.5, None]}
    assert upstream.bodies == [sent]
    asked = upstream.headers[0]
    assert (asked["authorization"], asked["x-custom"], asked["x-neuro-latent"]) == ("Bearer sk-caller", "yes", "done")
    headers = found.headers
    assert (headers["x-neuro-latent"], unquote(headers["x-neuro-latent-added"])) == ("added", "In Python.")
    assert (headers["openai-version"], headers["x-upstream-request-id"]) == ("2020", "theirs")
    (line,) = logged(log)
    assert (line["prompt"], line["added_characters"]) == ("added", 10)
    assert RAW not in log.read_text()


def test_streams_pass_through_as_they_arrive(ask: Ask, upstream: Upstream) -> None:
    upstream.delay_s = 0.02
    began, times, text = time.monotonic(), [], ""
    for chunk in say(ask(upstream=upstream.url), stream=True):
        times.append(time.monotonic() - began)
        text += chunk.choices[0].delta.content
    assert text == json.dumps(BETTER)
    assert times[0] < times[-1] / 2


def test_images_stay_beside_the_text(ask: Ask, upstream: Upstream) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    say(ask(upstream=upstream.url), [image, {"type": "text", "text": RAW}])
    assert upstream.last_text == [image, {"type": "text", "text": BETTER}]


def test_responses_and_the_rest_of_the_api_pass_through(ask: Ask, upstream: Upstream, triton: FakeServer) -> None:
    client = ask(upstream=upstream.url)
    client.responses.create(model="large", input=RAW)
    assert upstream.bodies[-1]["input"] == BETTER
    client.responses.create(model="large", input=[{"role": "user", "content": [{"type": "input_text", "text": RAW}]}])
    assert upstream.bodies[-1]["input"][0]["content"][0]["text"] == BETTER
    client.embeddings.create(model="small", input=RAW, encoding_format="float", extra_query={"a": "1"})
    assert upstream.bodies[-1] == {"model": "small", "input": RAW, "encoding_format": "float"}
    assert [model.id for model in client.models.list()] == ["neuro-latent", "neuro-latent/default", "large"]
    assert say(client, model="neuro-latent").choices[0].message.content == BETTER
    triton.models.clear()
    assert [model.id for model in client.models.list()] == ["neuro-latent", "large"]


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        ({"messages": ASKED}, {"x-neuro-latent": "OFF"}, "off"),
        ({"messages": ASKED}, {"x-neuro-latent": "done"}, "done"),
        ({"messages": [{"role": "user", "content": "```\nx\n```"}]}, {}, "code"),
        ({"messages": [{"role": "user", "content": "x" * 2001}]}, {}, "long"),
        ({"messages": [{"role": "user", "content": "  "}]}, {}, "blank"),
        ({"messages": [{"role": "user", "content": None}]}, {}, "no text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, {}, "no text"),
        ({"messages": [{"role": "user", "content": 2 * [{"type": "text", "text": RAW}]}]}, {}, "several texts"),
        ({"messages": [*ASKED, {"role": "assistant", "content": "Yes"}]}, {}, "not the user's turn"),
        ({"messages": [{"role": "assistant", "content": "Hi"}, *ASKED]}, {}, "a later turn"),
        ({"messages": [{"role": "tool", "content": "7"}]}, {}, "not the user's turn"),
        ({"messages": "no list"}, {}, "no messages"),
        ({}, {}, "no messages"),
    ],
)  # fmt: skip
def test_what_nothing_is_added_to(
    start: Start, upstream: Upstream, body: dict[str, Any], headers: dict[str, str], reason: str
) -> None:
    rest = start(upstream=upstream.url)
    body = {"model": "large", **body}
    answer = rest.post("/v1/chat/completions", json=body, headers=headers)
    assert answer.headers["x-neuro-latent"] == reason
    assert upstream.bodies == [body]
    metrics = rest.get("/metrics").text
    assert f'neuro_latent_gateway_passed_on_total{{prompt="{reason}"}} 1.0' in metrics


def test_later_turns_and_long_texts_where_they_are_wanted(ask: Ask, upstream: Upstream) -> None:
    client = ask(upstream=upstream.url, upstream_every_turn=True, upstream_longest=5000)
    messages: list[Any] = [{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "x" * 3000}]
    client.chat.completions.create(model="large", messages=messages)
    assert upstream.last_text.endswith("Say for whom it is.")


def test_the_shadow_changes_nothing(ask: Ask, upstream: Upstream, log: Path) -> None:
    say(ask(upstream=upstream.url, upstream_shadow=True))
    assert upstream.last_text == RAW
    assert "x-neuro-latent" not in upstream.headers[0]
    (line,) = logged(log)
    assert (line["prompt"], line["added_characters"]) == ("shadow", 10)


def test_a_prompt_that_gets_nothing_goes_on_as_it_is(ask: Ask, upstream: Upstream, triton: FakeServer) -> None:
    triton.withheld = {RAW: "not sure enough"}
    found = ask(upstream=upstream.url).chat.completions.with_raw_response.create(
        model="large", messages=[{"role": "user", "content": RAW}]
    )
    assert found.headers["x-neuro-latent"] == "withheld"
    assert upstream.last_text == RAW


def test_a_prompt_waits_no_longer_than_the_budget(ask: Ask, upstream: Upstream, triton: FakeServer) -> None:
    triton.delay_s = 5
    began = time.monotonic()
    say(ask(upstream=upstream.url, upstream_budget=0.2))
    assert time.monotonic() - began < 3
    assert upstream.last_text == RAW


def test_a_triton_that_is_away_holds_up_nothing_and_is_asked_again_later(
    ask: Ask, upstream: Upstream, triton: FakeServer, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "OPEN_S", 0.5)
    client = ask(upstream=upstream.url)
    triton.fail("busy", "away", times=chat.FAILURES)
    for _ in range(chat.FAILURES + 1):
        say(client)
    outcomes = [line["prompt"] for line in logged(log, count=chat.FAILURES + 1)]
    assert outcomes == [*["failed"] * chat.FAILURES, "unavailable"]
    triton.fail("busy", "away")
    for pause, expected in ((0.6, RAW), (0, RAW), (0.6, BETTER)):  # one asks and fails; the next does not ask
        time.sleep(pause)
        say(client)
        assert upstream.last_text == expected


def test_texts_that_are_refused_open_no_breaker(start: Start, upstream: Upstream) -> None:
    rest = start(upstream=upstream.url)
    for _ in range(chat.FAILURES + 1):
        odd = rest.post(
            "/v1/chat/completions",
            content=b'{"model": "large", "messages": [{"role": "user", "content": "a \\ud800 b"}]}',
        )
        assert (odd.status_code, odd.headers["x-neuro-latent"]) == (200, "refused")
    assert upstream.last_text == "a \ud800 b"
    assert (
        rest.post("/v1/chat/completions", json={"model": "m", "messages": ASKED}).headers["x-neuro-latent"] == "added"
    )


def test_no_path_leads_out_of_the_upstreams_api(start: Start, upstream: Upstream) -> None:
    rest = start(upstream=upstream.url)
    for path in ("/v1/%2e%2e/admin", "/v1/a/%2e%2e/%2e%2e/admin"):
        with socket.create_connection((rest.base_url.host, rest.base_url.port)) as line:
            line.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            assert line.makefile("rb").readline().split()[1] == b"404"
    rest.post("/v1/embeddings?a=%26b", json={"model": "m"})
    assert upstream.bodies == [{"model": "m"}]


# Faults of the upstream ----------------------------------------------------------------------------------------------


def test_its_errors_are_passed_back_as_they_are(ask: Ask, upstream: Upstream, log: Path) -> None:
    client = ask(upstream=upstream.url)
    upstream.status = 429
    with pytest.raises(openai.RateLimitError) as caught:
        say(client)
    assert caught.value.code == "quota"
    assert caught.value.response.headers["retry-after-ms"] == "1"
    upstream.status = 500
    with pytest.raises(openai.InternalServerError, match="out of credit"):
        say(client)
    refused, failed = logged(log, count=2)
    assert (refused["level"], failed["level"], failed["upstream"]) == ("info", "error", "HTTP 500")


def test_one_that_is_away_is_a_502_that_names_no_address(ask: Ask, log: Path) -> None:
    with pytest.raises(openai.InternalServerError, match="the upstream cannot be reached") as caught:
        say(ask(upstream="http://127.0.0.1:9/v1"))
    assert caught.value.status_code == 502
    assert "127.0.0.1:9" not in str(caught.value)
    assert logged(log)[0]["upstream"] == "ConnectError"


def test_one_that_is_slow_is_a_504(ask: Ask, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstreams, "ANSWER_S", 0.3)
    upstream.delay_s = 2
    with pytest.raises(openai.InternalServerError, match="no answer in time") as caught:
        say(ask(upstream=upstream.url))
    assert caught.value.status_code == 504


def test_a_stream_that_breaks_breaks(ask: Ask, upstream: Upstream, log: Path) -> None:
    upstream.breaks = True
    with pytest.raises(openai.APIConnectionError):
        list(say(ask(upstream=upstream.url), stream=True))
    (line,) = logged(log)
    assert (line["level"], line["upstream"]) == ("error", "RemoteProtocolError")


def test_a_client_that_leaves_ends_the_upstreams_work(ask: Ask, upstream: Upstream) -> None:
    upstream.delay_s = 0.1
    stream = say(ask(upstream=upstream.url), stream=True)
    next(iter(stream))
    stream.close()
    until = time.monotonic() + 5
    while not upstream.left and time.monotonic() < until:
        time.sleep(0.05)
    assert upstream.left == 1


# Keys ----------------------------------------------------------------------------------------------------------------


def test_callers_keys_are_never_sent_on(ask: Ask, upstream: Upstream, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = add_key(file, "ada")
    with pytest.raises(UsageError, match="the upstream's own key"):
        GatewayConfig(upstream=upstream.url, api_keys=file)
    client = ask(key, upstream=upstream.url, api_keys=file, upstream_key="sk-ours")
    say(client)
    client.models.list()
    assert {headers["authorization"] for headers in upstream.headers} == {"Bearer sk-ours"}
    with pytest.raises(openai.AuthenticationError, match="not known"):
        client.with_options(api_key="wrong").models.list()


@pytest.mark.parametrize("url", ["ftp://x/v1", "localhost:8000", "http://", "http://x/v1?a=1"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(UsageError, match=r"--upstream .*not the address"):
        GatewayConfig(upstream=url)
