"""What the clients do, the same over gRPC, HTTP and the fake, sync and async."""

import pickle
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import pytest

from neuro_latent_client import (
    AccessDeniedError,
    AsyncClient,
    Client,
    DeadlineError,
    InvalidRequestError,
    ModelNotFoundError,
    NeuroLatentError,
    Piece,
    ServerError,
    ServerUnavailableError,
    _retry,
)
from neuro_latent_client.transports import grpc, http
from neuro_latent_core import protocol
from tests.unit.client.blocking import BlockingClient

pytestmark = pytest.mark.slow

with_triton = pytest.mark.parametrize("transport", ["grpc", "http", "fake"], indirect=True)
"""Of what a gateway does not pass on, or says in words of its own (see test_client_rest.py)."""


@pytest.fixture(params=["optimize", "stream"])
def ask(request, client):
    """Ask by either method, to the end."""

    def whole_stream(*args, **kwargs):
        with client.stream(*args, **kwargs) as stream:
            list(stream)
        return stream.result

    return client.optimize if request.param == "optimize" else whole_stream


@pytest.fixture(params=["grpc", "http"])
def dead_url(request):
    """An address where nothing listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"{request.param}://127.0.0.1:{unused.getsockname()[1]}"


def test_optimize_returns_text_and_its_facts(client, script, transport):
    raw_prompt = "Créate a 函数\n" + ("" if transport == "rest" else "\0")  # which a gateway refuses, as the models do
    answer = client.optimize(raw_prompt)
    assert answer.text == f"{raw_prompt}\n\nWell: 0"
    assert (answer.added, answer.unchanged) == ("Well: 0", False)
    assert (answer.score, answer.finish_reason, answer.reason) == (0.25, "stop", "")
    assert answer.sequences[0].generated_tokens == 5
    assert (answer.truncated, answer.cached, answer.model_version) == (True, True, "mini-1")
    assert answer.raw_prompt == raw_prompt
    assert answer.transport == transport
    assert answer.elapsed_ms > 0
    assert answer.request_id == script.requests[0].request_id
    assert len(answer.request_id) == 32


def test_several_sequences_come_in_order(client):
    answer = client.optimize("x", num_return_sequences=3, temperature=1)
    assert [sequence.text for sequence in answer.sequences] == ["x\n\nWell: 0", "x\n\nWell: 1", "x\n\nWell: 2"]
    assert [sequence.score for sequence in answer.sequences] == [0.25, 0.5, 0.75]


def test_only_options_that_were_set_are_sent(ask, script):
    ask("x")
    assert script.seen_inputs()[0] == {"raw_prompt": "x"}


def test_every_option_arrives_with_its_value(ask, script):
    options = {
        "max_length": 64,
        "num_return_sequences": 2,
        "temperature": 0.5,
        "top_k": 0,
        "top_p": 1,
        "num_beams": 1,
        "length_penalty": 0.5,
        "seed": 2**62,
        "deadline_ms": 5_000,
        "min_confidence": 0.5,
    }
    assert options.keys() == protocol.OPTION_TYPES.keys()
    ask("x", **options)
    inputs = dict(script.requests[0].inputs)
    assert 0 < inputs.pop("deadline_ms") <= options.pop("deadline_ms")  # the time until it was sent counts
    assert inputs == {"raw_prompt": "x", **options}


def test_each_method_asks_its_own_model(client, script):
    client.optimize("x")
    list(client.stream("x"))
    assert [request.model for request in script.requests] == [protocol.UNARY_MODEL, protocol.STREAM_MODEL]
    assert script.requests[0].request_id != script.requests[1].request_id


@with_triton
def test_headers_are_sent(make_client, script):
    with make_client(headers={"X-Tenant": "seven"}) as client:
        client.optimize("x")
        list(client.stream("x"))
    assert [request.headers["x-tenant"] for request in script.requests] == ["seven", "seven"]


def test_stream_gives_pieces_then_the_whole(client, script):
    with client.stream("x") as stream:
        pieces = list(stream)
    assert pieces == [Piece("Write ", 0), Piece("a\u2028test.", 0)]
    assert stream.result.text == "Write a\u2028test."
    assert (stream.result.finish_reason, stream.result.model_version) == ("stop", "mini-1")
    assert stream.result.request_id == script.requests[0].request_id
    assert list(stream) == []


def test_stream_pieces_arrive_before_the_end(client, script):
    script.delay_s = 0.3
    start = time.perf_counter()
    with client.stream("x") as stream:
        next(stream)
        assert time.perf_counter() - start < 0.3


def test_stream_remembers_that_the_prompt_was_cut(client, script, make_response):
    script.responses = [{**make_response("a"), "truncated": [True]}, make_response("b", 0, "stop")]
    with client.stream("x") as stream:
        list(stream)
    assert stream.result.truncated


@pytest.mark.parametrize("last", [[], [""]], ids=["at once", "with an end of its own"])
def test_an_addition_comes_with_its_piece(client, script, make_response, last):
    complement = make_response("\n\nIn C.", 0, "" if last else "stop", added="In C.")
    script.responses = [make_response("x"), complement, *(make_response(text, 0, "stop") for text in last)]
    with client.stream("x") as stream:
        assert list(stream) == [Piece("x", 0), Piece("\n\nIn C.", 0)]
    assert (stream.result.text, stream.result.added) == ("x\n\nIn C.", "In C.")


def test_a_withheld_addition_has_its_reason(ask, script, make_response):
    facts = {"finish_reason": ["withheld"], "reason": ["not sure enough"]}
    script.responses = [make_response("x"), {**make_response(""), **facts}]
    script.answer = {**script.unary({"raw_prompt": "x"}), **facts, "enhanced_prompt": ["x"], "added": [""]}
    answer = ask("x")
    assert (answer.text, answer.added, answer.unchanged) == ("x", "", True)
    assert (answer.finish_reason, answer.reason) == ("withheld", "not sure enough")


def test_stream_keeps_sequences_apart(client, script, make_response):
    script.responses = [
        make_response("b1", 1),
        make_response("a1", 0),
        make_response("b2", 1, "length"),
        make_response("a2", 0, "stop"),
    ]
    with client.stream("x", num_return_sequences=2, temperature=1) as stream:
        list(stream)
    assert [(s.text, s.finish_reason) for s in stream.result.sequences] == [("a1a2", "stop"), ("b1b2", "length")]


def test_leaving_a_stream_early_cancels_on_the_server(client, script, make_response, transport):
    script.responses = [make_response("word ")] * 200
    script.delay_s = 0.02
    with client.stream("x") as stream:
        next(stream)
    until = time.monotonic() + 5
    while transport == "rest" and not script.cancelled and time.monotonic() < until:  # it is told by the connection
        time.sleep(0.01)
    assert script.cancelled
    assert list(stream) == []
    with pytest.raises(RuntimeError, match="iterate it to its end"):
        _ = stream.result


def test_another_thread_may_close_a_stream_that_waits(client, script):
    script.delay_s = 1.0
    with client.stream("x") as stream:
        next(stream)
        closer = threading.Timer(0.1, stream.close)
        closer.start()
        start = time.perf_counter()
        assert list(stream) == []
        assert time.perf_counter() - start < 0.8
        closer.join()


def test_a_finished_stream_is_not_cancelled(client, script):
    with client.stream("x") as stream:
        list(stream)
    assert not script.cancelled


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("invalid", "max_length: 0 is not in 1..512", InvalidRequestError),
        ("busy", "the queue is full", ServerUnavailableError),
        ("internal", "boom", ServerError),
        ("no version", "Request for unknown model: 'x' has no available versions", ModelNotFoundError),
    ],
)
@with_triton
def test_the_kind_of_failure_decides_the_error(ask, script, kind, text, expected):
    script.fail(kind, f"in ensemble 'neuro_latent_optimizer', {text}", times=9)
    with pytest.raises(NeuroLatentError, match=text) as caught:
        ask("x")
    assert type(caught.value) is expected
    assert caught.value.request_id == script.requests[0].request_id
    assert caught.value.request_id in str(caught.value)
    assert "in ensemble" not in str(caught.value)


@with_triton
def test_unknown_model_says_what_to_do(ask, script):
    script.models.clear()
    with pytest.raises(ModelNotFoundError, match="neuro-latent export"):
        ask("x")


def test_failure_inside_a_stream_comes_after_its_pieces(client, script, transport):
    script.fail("internal", "boom", after=1)
    stream = client.stream("x")
    assert next(stream).text == "Write "
    with pytest.raises(ServerError, match="the server failed" if transport == "rest" else "boom"):
        next(stream)
    assert list(stream) == []


def test_the_timeout_limits_the_whole_call(ask, script, make_response):
    script.delay_s = 0.4
    script.responses = [make_response("word ")] * 10  # each wait is short, their sum is not
    start = time.perf_counter()
    with pytest.raises(DeadlineError, match=r"within 0\.3 s") as caught:
        ask("x", timeout=0.3)
    assert time.perf_counter() - start < 1.5
    assert isinstance(caught.value, TimeoutError)


def test_many_short_waits_do_not_outlast_the_timeout(client, script, make_response):
    script.delay_s = 0.1
    script.responses = [make_response("word ")] * 30
    start = time.perf_counter()
    with pytest.raises(DeadlineError), client.stream("x", timeout=0.35) as stream:
        list(stream)
    assert 0.3 < time.perf_counter() - start < 1.0


@with_triton
def test_stream_without_an_end_is_an_error(client, script, make_response):
    script.responses = [make_response("half a ")]
    with pytest.raises(ServerError, match="ended before the text was whole"):
        list(client.stream("x"))


@with_triton
def test_answer_outside_the_contract_is_an_error(client, script):
    answer = script.unary({"raw_prompt": "x"})
    script.answer = {name: values for name, values in answer.items() if name != "score"}
    with pytest.raises(ServerError, match="lacks 'score'"):
        client.optimize("x")
    script.answer = {**answer, "score": [0.1, 0.2]}
    with pytest.raises(ServerError, match="different lengths"):
        client.optimize("x")


@pytest.mark.parametrize("clients", [Client, partial(BlockingClient, AsyncClient)], ids=["sync", "async"])
def test_nobody_there(clients, dead_url):
    with clients(dead_url) as client:
        with pytest.raises(ServerUnavailableError, match="neuro-latent serve"):
            client.optimize("x")
        with pytest.raises(ServerUnavailableError):
            list(client.stream("x"))
        health = client.health()
    assert (health.live, health.ready, health.model_version) == (False, False, None)
    assert "unavailable" in health.problem


@pytest.mark.parametrize("scheme", ["grpc", "http"])
@pytest.mark.parametrize("clients", [Client, partial(BlockingClient, AsyncClient)], ids=["sync", "async"])
def test_a_server_off_the_network_is_told_of_soon(clients, scheme, monkeypatch):
    for transport in (grpc, http):
        monkeypatch.setattr(transport, "CONNECT_TIMEOUT_S", 0.5)
    with socket.socket() as full, ExitStack() as stack:  # it drops what would connect, as a firewall does
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        with clients(f"{scheme}://127.0.0.1:{full.getsockname()[1]}") as client:
            start = time.perf_counter()
            with pytest.raises(ServerUnavailableError):
                client.optimize("x")
            assert time.perf_counter() - start < 3


@pytest.mark.parametrize(
    ("raw_prompt", "options", "words"),
    [
        (b"x", {}, "raw_prompt: must be str, not bytes"),
        ("half \ud83d", {}, "raw_prompt: character 5"),
        ("x", {"max_length": "9"}, "max_length: must be int, not str"),
        ("x", {"max_length": True}, "max_length: must be int, not bool"),
        ("x", {"max_length": 2**31}, "max_length: 2147483648 does not fit in INT32"),
        ("x", {"seed": 2**63}, "does not fit in INT64"),
        ("x", {"temperature": float("nan")}, "temperature: nan is not a finite"),
        ("x", {"top_p": 1e39}, "top_p: 1e\\+39 is not a finite"),
        ("x", {"timeout": 0}, "timeout: 0 is not above 0"),
    ],
)
def test_what_the_wire_cannot_carry_is_refused_here(ask, script, raw_prompt, options, words):
    with pytest.raises(InvalidRequestError, match=words):
        ask(raw_prompt, **options)
    assert script.requests == []


@with_triton
def test_limits_belong_to_the_server(ask, script):
    ask("", max_length=-5, temperature=-1)
    assert script.seen_inputs()[0] == {"raw_prompt": "", "max_length": -5, "temperature": -1}


@with_triton
def test_health_of_a_ready_server(client):
    health = client.health()
    assert (health.live, health.ready, health.model_version, health.problem) == (True, True, "1", "")
    assert health.url in repr(client)
    assert health.elapsed_ms > 0


@pytest.mark.parametrize(
    ("change", "live", "words"),
    [
        (lambda script: setattr(script, "live", False), False, "not as a live Triton"),
        (lambda script: setattr(script, "ready", False), True, "the server is not ready"),
        (lambda script: script.models.remove(protocol.STREAM_MODEL), True, protocol.STREAM_MODEL),
        (lambda script: script.models.remove(protocol.UNARY_MODEL), True, protocol.UNARY_MODEL),
    ],
)
@with_triton
def test_health_says_what_is_missing(client, script, change, live, words):
    change(script)
    health = client.health()
    assert (health.live, health.ready) == (live, False)
    assert words in health.problem


@pytest.mark.parametrize("model", [protocol.UNARY_MODEL, protocol.STREAM_MODEL])
@with_triton
def test_health_is_an_answer_of_each_model(client, script, model):
    """Triton calls a model ready whose process has died."""
    if model == protocol.STREAM_MODEL:
        script.responses = []
    else:
        script.fail("internal", "Stub process 'tokenizer_0_0' is not healthy.")
    health = client.health()
    assert (health.live, health.ready) == (True, False)
    assert "failed" in health.problem
    assert len(script.requests) == 1 + (model == protocol.STREAM_MODEL), "a probe has one attempt"
    assert all(request.inputs["max_length"] == 1 for request in script.requests)


def test_a_full_queue_is_healthy(client, script):
    script.fail("busy", "in ensemble 'x', the server is too busy: its queue holds 128 requests already")
    assert client.health().ready


def test_threads_share_a_client(client):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(client.optimize, [f"prompt {i}" for i in range(40)]))
    assert [answer.text for answer in answers] == [f"prompt {i}\n\nWell: 0" for i in range(40)]


def test_a_closed_client_says_so(client):
    client.close()
    for call in (lambda: client.optimize("x"), lambda: client.stream("x"), client.health):
        with pytest.raises(RuntimeError, match="closed"):
            call()


def test_errors_survive_pickling():
    error = pickle.loads(pickle.dumps(ServerError("boom", request_id="abc")))
    assert (str(error), error.request_id) == ("boom (request abc)", "abc")


def test_many_keep_their_order_and_their_failures(client, script):
    prompts = [f"prompt {i}" for i in range(20)] + ["half \ud83d"]
    seen = []
    script.fail("internal", "boom", times=2)
    outcomes = client.optimize_many(prompts, concurrency=4, on_progress=seen.append, seed=7)
    failed = [outcome for outcome in outcomes[:-1] if isinstance(outcome, ServerError)]
    assert len(failed) == 2
    assert isinstance(outcomes[-1], InvalidRequestError)
    for prompt, outcome in zip(prompts[:-1], outcomes[:-1], strict=True):
        assert outcome in failed or outcome.text == f"{prompt}\n\nWell: 0"
    assert [(item.done, item.total) for item in seen] == [(done, 21) for done in range(1, 22)]
    assert sorted(item.index for item in seen) == list(range(21))
    assert all(item.outcome is outcomes[item.index] for item in seen)
    assert all(request.inputs["seed"] == 7 for request in script.requests)


@with_triton
def test_many_are_asked_no_more_than_so_many_at_a_time(client, script):
    script.delay_s = 0.1
    start = time.perf_counter()
    client.optimize_many(["x"] * 6, concurrency=2)
    assert 0.3 <= time.perf_counter() - start < 0.58
    assert client.optimize_many([]) == []
    with pytest.raises(InvalidRequestError, match="concurrency: 0 is below 1"):
        client.optimize_many(["x"], concurrency=0)


def test_a_callback_that_raises_ends_the_many(client, script):
    script.delay_s = 0.05

    def give_up(progress):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        client.optimize_many(["x"] * 40, concurrency=2, on_progress=give_up)
    assert len(script.requests) < 6


@with_triton
def test_busy_servers_are_asked_again(ask, script):
    script.fail("busy", "the queue is full", times=2)
    answer = ask("x")
    assert len(script.requests) == 3
    assert {request.request_id for request in script.requests} == {answer.request_id}


@pytest.mark.parametrize(("retries", "attempts"), [(0, 1), (1, 2), (3, 4)])
@with_triton
def test_retries_are_a_setting(make_client, script, retries, attempts):
    script.fail("busy", "the queue is full", times=9)
    with make_client(retries=retries) as client, pytest.raises(ServerUnavailableError, match="the queue is full"):
        client.optimize("x")
    assert len(script.requests) == attempts


@pytest.mark.parametrize("failure", ["invalid", "denied", "internal"])
def test_only_what_may_pass_is_asked_again(ask, script, failure):
    script.fail(failure, "no")
    with pytest.raises(NeuroLatentError):
        ask("x")
    assert len(script.requests) == 1


def test_a_stream_is_not_asked_again_after_its_first_piece(client, script):
    script.fail("busy", "the queue is full", after=1)
    stream = client.stream("x")
    assert next(stream).text == "Write "
    with pytest.raises(ServerUnavailableError):
        next(stream)
    assert len(script.requests) == 1


@with_triton
def test_one_deadline_holds_for_all_attempts(make_client, script, monkeypatch, caplog):
    script.fail("busy", "the queue is full", times=99)
    start = time.perf_counter()
    monkeypatch.setattr(_retry, "FIRST_WAIT_S", 0.1)
    with make_client(retries=50) as client, pytest.raises(ServerUnavailableError):
        client.optimize("x", timeout=0.6)
    assert 0.1 < time.perf_counter() - start < 0.8
    assert len(script.requests) > 1
    assert [record.message.count("\n") for record in caplog.records] == [0], "one line for all attempts"
    deadlines = [request.inputs["deadline_ms"] for request in script.requests]
    assert deadlines == sorted(deadlines, reverse=True)
    assert deadlines[-1] < deadlines[0] <= 600


def test_a_deadline_counts_from_the_call_on(make_client, script, monkeypatch):
    script.fail("busy", "the queue is full", times=2)
    monkeypatch.setattr(_retry, "FIRST_WAIT_S", 0.1)
    with make_client(retries=2) as client:
        client.optimize("x", deadline_ms=5000)
    first, second, third = (request.inputs["deadline_ms"] for request in script.requests)
    assert 5000 >= first > second > third > 0


@pytest.mark.parametrize(
    ("timeout", "asked", "low", "high"),
    [(20, None, 19_000, 20_000), (20, 0, 19_000, 20_000), (20, 500, 400, 500), (20, 30_000, 19_000, 20_000)],
)
def test_the_server_gets_the_smaller_deadline(ask, script, timeout, asked, low, high):
    ask("x", timeout=timeout, deadline_ms=asked)
    assert low <= script.requests[0].inputs["deadline_ms"] <= high


@with_triton
def test_a_deadline_that_the_server_would_refuse_is_not_made_up(ask, script):
    ask("x", timeout=700)
    assert "deadline_ms" not in script.requests[0].inputs


@with_triton
def test_an_answer_to_another_feedback_is_no_acknowledgement(client, script, monkeypatch):
    store = script._store
    monkeypatch.setattr(script, "_store", lambda inputs: {**store(inputs), "idempotency_key": ["of another"]})
    with pytest.raises(ServerUnavailableError, match="answered another feedback"):
        client.feedback("abc", 1, raw_prompt="x", enhanced_prompt="y")
    assert len(script.requests) > 1  # it was sent again


def test_a_repository_from_before_does_not_say_whose_an_answer_is(client, script, monkeypatch):
    store = script._store
    monkeypatch.setattr(
        script, "_store", lambda inputs: {k: v for k, v in store(inputs).items() if k != "idempotency_key"}
    )
    assert client.feedback("abc", 1, raw_prompt="x", enhanced_prompt="y").created


def test_feedback_on_an_answer(client, script):
    answer = client.optimize("x")
    feedback = client.feedback(answer, -1, edited_prompt="x, better", comment="né", user=None)
    assert (feedback.feedback_id, feedback.created, feedback.request_id) == ("feedback-1", True, answer.request_id)
    assert script.requests[1].inputs == {
        "request_id": answer.request_id,
        "raw_prompt": "x",
        "enhanced_prompt": "x\n\nWell: 0",
        "model_version": "mini-1",
        "rating": -1,
        "edited_prompt": "x, better",
        "comment": "né",
    }
    assert not client.feedback(answer, 1).created
    assert client.feedback(answer, 1, idempotency_key="second").created


def test_feedback_by_request_id(client, script):
    client.feedback("abc", 1, raw_prompt="x", enhanced_prompt="y")
    assert script.requests[0].inputs == {"request_id": "abc", "raw_prompt": "x", "enhanced_prompt": "y", "rating": 1}


def test_an_answer_that_was_empty_can_be_rated(client, script):
    assert client.feedback("abc", -1, raw_prompt="x", enhanced_prompt="").created
    assert script.requests[0].inputs["enhanced_prompt"] == ""


def test_feedback_is_sent_again_to_a_busy_server(client, script):
    script.fail("busy", "try later", times=2)
    assert client.feedback("abc", 1, raw_prompt="x", enhanced_prompt="y").created


@pytest.mark.parametrize(
    ("rating", "details", "words"),
    [
        (0, {}, "rating: 0 is neither"),
        (1.0, {}, "rating: must be int"),
        (True, {}, "rating: must be int"),
        (1, {"raw_prompt": None}, "raw_prompt: missing; give the Optimization itself"),
        (1, {"enhanced_prompt": None}, "enhanced_prompt: missing"),
        (1, {"comment": "c" * 4097}, "comment: 4097 characters are more than 4096; send a shorter one"),
        (1, {"user": 7}, "user: must be str, not int"),
        (1, {"edited_prompt": "\ud83d"}, "edited_prompt: character 0"),
    ],
)
def test_feedback_outside_the_contract_is_refused_here(client, script, rating, details, words):
    with pytest.raises(InvalidRequestError, match=words):
        client.feedback("abc", rating, **{"raw_prompt": "x", "enhanced_prompt": "y", **details})
    assert script.requests == []


def test_unknown_details_are_a_mistake_in_the_program(client):
    with pytest.raises(TypeError, match="unexpected detail 'commment'"):
        client.feedback("abc", 1, commment="x")


def test_the_loaded_adapters_are_listed(client, script):
    script.adapters = {"default": "mini-1", "team": "mini-2"}
    assert [(adapter.name, adapter.version) for adapter in client.adapters()] == [*script.adapters.items()]
    assert script.requests[0].inputs["max_length"] == 1


@with_triton
def test_models_are_listed(client):
    assert [(model.name, model.version, model.ready) for model in client.models()] == [
        (protocol.UNARY_MODEL, "1", True),
        (protocol.STREAM_MODEL, "1", True),
        (protocol.FEEDBACK_MODEL, "1", True),
    ]


@with_triton
def test_a_denied_client_hears_what_to_check(ask, script):
    script.fail("denied", "unknown key")
    with pytest.raises(AccessDeniedError, match=r"unknown key\. Check api_key"):
        ask("x")


@with_triton
def test_the_api_key_is_sent_and_never_shown(make_client, script):
    with make_client(api_key="s3cret", headers={"X-Tenant": "s3ven"}) as client:
        client.optimize("x")
        assert "s3" not in repr(client)
        assert "'authorization': '***'" in repr(client)
    assert script.requests[0].headers["authorization"] == "Bearer s3cret"
    assert "s3cret" not in repr(script.requests)


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@with_triton
def test_the_trace_is_passed_on(client, script):
    client.optimize("x", traceparent=TRACE)
    list(client.stream("x", traceparent=TRACE))
    client.feedback("abc", 1, raw_prompt="x", enhanced_prompt="y", traceparent=TRACE)
    assert [request.headers["traceparent"] for request in script.requests] == [TRACE] * 3
    client.optimize("x", traceparent="")  # as a caller passes it on who has none
    assert "traceparent" not in script.requests[-1].headers
    with pytest.raises(InvalidRequestError, match="traceparent"):
        client.optimize("x", traceparent="00-short")


def test_timings_of_a_stream(client, script):
    script.delay_s = 0.05
    with client.stream("x") as stream:
        list(stream)
    assert 0 < stream.result.first_piece_ms < stream.result.elapsed_ms - 90
    assert stream.result.generated_tokens == 3
    assert client.optimize("x").first_piece_ms is None


def test_half_a_text_only_for_those_who_ask_for_it(ask, script, make_response):
    """The server's clock may be a moment faster than the client's."""
    script.responses = [make_response("half a", finish_reason="deadline")]
    script.answer = {**script.unary({"raw_prompt": "x"}), "finish_reason": ["deadline"]}
    assert ask("x", deadline_ms=50).finish_reason == "deadline"
    with pytest.raises(DeadlineError):
        ask("x")
