"""What each route takes, gives and refuses."""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from neuro_latent_client.testing import FakeServer
from neuro_latent_core.protocol import FEEDBACK_MODEL, FINISH_REASONS
from neuro_latent_serving.errors import NEEDS_OPERATOR, StoreDamaged
from neuro_latent_serving.gateway import app
from neuro_latent_serving.gateway.config import GatewayConfig
from neuro_latent_serving.gateway.schemas import FeedbackRequest, OptimizeRequest
from neuro_latent_serving.gateway.server import GatewayServer
from tests.unit.serving.gateway.conftest import Start, logged

pytestmark = pytest.mark.slow

PROMPT = {"raw_prompt": "Create a function"}
ENHANCED = "Create a function\n\nIn Python."
FEEDBACK = {"request_id": "r1", "raw_prompt": "raw", "enhanced_prompt": "better", "rating": 1}

READY = {"ready": True, "feedback": "ready", "adapters": {"default": "fake-1"}}


def problem(response: httpx2.Response, status: int) -> dict[str, Any]:
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["request_id"] == response.headers["x-request-id"]
    assert ("retry-after" in response.headers) == (status in (429, 503))
    return body


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Names and data of server-sent events."""
    blocks = [block.split("\n") for block in text.split("\n\n") if block]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


def test_optimize(rest: httpx2.Client, triton: FakeServer) -> None:
    response = rest.post("/optimize", json={**PROMPT, "num_return_sequences": 2, "temperature": 1, "seed": 3})
    assert response.status_code == 200
    answer = response.json()
    assert answer["enhanced_prompt"] == ENHANCED
    sequence = {"text": ENHANCED, "added": "In Python.", "score": 0.9, "generated_tokens": 2}
    assert answer["sequences"] == [{**sequence, "finish_reason": "stop", "reason": ""}] * 2
    (request,) = triton.requests
    assert request.request_id == answer["request_id"]
    assert "top_k" not in request.inputs, "the server's default holds"


def test_an_adapter_is_named(rest: httpx2.Client, triton: FakeServer) -> None:
    triton.adapters = {"default": "v1", "team": "v2"}
    assert rest.post("/optimize", json={**PROMPT, "adapter": "team"}).json()["model_version"] == "v2"
    *_, (_, result) = events(rest.post("/optimize/stream", json={**PROMPT, "adapter": "team"}).text)
    assert result["model_version"] == "v2"
    for path in ("/optimize", "/optimize/stream"):
        told = problem(rest.post(path, json={**PROMPT, "adapter": "other"}), 422)
        assert "adapter 'other' is not known here; known are default, team" in told["detail"]
        assert problem(rest.post(path, json={**PROMPT, "adapter": "../x"}), 422)["errors"][0]["pointer"] == "#/adapter"
    assert len(triton.requests) == 4, "what can be no name does not reach Triton"


@pytest.mark.parametrize("path", ["/optimize", "/optimize/stream"])
def test_nothing_is_added_without_confidence(rest: httpx2.Client, triton: FakeServer, path: str) -> None:
    raw_prompt = "Créate `x`  \r\n"
    response = rest.post(path, json={"raw_prompt": raw_prompt, "min_confidence": 1})
    answer = response.json() if path == "/optimize" else events(response.text)[-1][1]
    (sequence,) = answer["sequences"]
    assert (answer["enhanced_prompt"], sequence["text"], sequence["added"]) == (raw_prompt, raw_prompt, "")
    assert (sequence["finish_reason"], sequence["reason"], sequence["score"]) == ("withheld", "not sure enough", 0.9)
    assert triton.requests[0].inputs["min_confidence"] == 1


def test_stream(rest: httpx2.Client) -> None:
    response = rest.post("/optimize/stream", json=PROMPT)
    assert response.headers["content-type"].startswith("text/event-stream")
    *pieces, (last, result) = events(response.text)
    assert pieces == [
        ("piece", {"text": "Create a function", "sequence_index": 0}),
        ("piece", {"text": "\n\nIn Python.", "sequence_index": 0}),
    ]
    assert (last, result["enhanced_prompt"]) == ("result", ENHANCED)


def test_the_adapters_that_are_loaded(rest: httpx2.Client, triton: FakeServer) -> None:
    triton.adapters = {"default": "fake-1", "team": "fake-2"}
    listed = [{"name": "default", "version": "fake-1"}, {"name": "team", "version": "fake-2"}]
    assert rest.get("/adapters").json() == {"adapters": listed}
    triton.fail("busy", "the queue is full")
    assert rest.get("/adapters").status_code == 503


def test_feedback_is_stored_once(rest: httpx2.Client, triton: FakeServer) -> None:
    first, again = rest.post("/feedback", json=FEEDBACK), rest.post("/feedback", json=FEEDBACK)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["feedback_id"] == again.json()["feedback_id"]
    assert [first.json()["created"], again.json()["created"]] == [True, False]
    assert triton.feedback["r1"] == FEEDBACK


def test_health_follows_triton(rest: httpx2.Client, triton: FakeServer) -> None:
    assert rest.get("/health").json() == READY
    triton.fail("internal", "Stub process 'tokenizer_0_0' is not healthy.")
    assert problem(rest.get("/health"), 503)["detail"] == "the models are not ready"
    for kind, text, told in (("internal", StoreDamaged.TEXT, "damaged"), ("busy", "try again later", "unavailable")):
        triton.fail(kind, text, model=FEEDBACK_MODEL)
        assert rest.get("/health").json() == {**READY, "feedback": told}
    triton.fail("internal", StoreDamaged.TEXT)
    assert problem(rest.post("/feedback", json=FEEDBACK), 502)["detail"] == StoreDamaged.TEXT
    assert triton.feedback == {}
    assert rest.get("/health").json() == READY
    triton.ready = False
    assert problem(rest.get("/health"), 503)["detail"] == "the models are not ready"
    triton.live = False
    assert problem(rest.get("/health"), 503)["detail"] == "the server cannot be reached"


@pytest.mark.parametrize(
    ("body", "pointer", "detail"),
    [
        ({}, "#/raw_prompt", "Field required"),
        ({**PROMPT, "max_length": 513}, "#/max_length", "less than or equal to 512"),
        ({**PROMPT, "temperature": "hot"}, "#/temperature", "valid number"),
        ({**PROMPT, "min_confidence": 1.01}, "#/min_confidence", "less than or equal to 1"),
        ({**PROMPT, "min_confidence": -0.01}, "#/min_confidence", "greater than or equal to 0"),
        ({**PROMPT, "temprature": 1}, "#/temprature", "not permitted"),
        ({"raw_prompt": "x" * 32769}, "#/raw_prompt", "at most 32768 characters"),
        ({"raw_prompt": " \n"}, "#", "raw_prompt holds only white space"),
        ({"raw_prompt": "a\0"}, "#", "raw_prompt holds a NUL"),
        ({**PROMPT, "num_return_sequences": 2}, "#", "set temperature above 0"),
        ([], "#", "send a JSON object"),
    ],
)
@pytest.mark.parametrize("path", ["/optimize", "/optimize/stream"])
def test_bad_prompts_and_options_are_named(
    rest: httpx2.Client, triton: FakeServer, path: str, body: Any, pointer: str, detail: str
) -> None:
    told = problem(rest.post(path, json=body), 422)
    assert detail in told["detail"]
    assert [error["pointer"] for error in told["errors"]] == [pointer]
    assert triton.requests == []


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"rating": 0}, "rating must be 1 or -1, not 0"),
        ({"comment": "x" * 4097}, "at most 4096 characters"),
        ({"request_id": " "}, "request_id holds only white space"),
        ({"request_id": None}, "valid string"),
        ({"rating": None}, "valid integer"),
        ({"nonsense": None}, "Extra inputs"),
    ],
)
def test_bad_feedback_is_named(rest: httpx2.Client, change: dict[str, Any], detail: str) -> None:
    assert detail in problem(rest.post("/feedback", json={**FEEDBACK, **change}), 422)["detail"]


def test_what_is_no_json_or_no_route(rest: httpx2.Client) -> None:
    json_type = {"content-type": "application/json"}
    problem(rest.post("/optimize", content=b'{"raw_prompt": "\xff"}', headers=json_type), 400)
    problem(rest.post("/optimize", content=b"[" * 100_000, headers=json_type), 400)
    problem(
        rest.post("/optimize", content=b'{"raw_prompt": "x", "top_k": ' + b"9" * 5000 + b"}", headers=json_type), 400
    )
    for text in (b"{", b'{"\\ud800": 1}', b'{"raw_prompt": "\\ud800"}', b'{"raw_prompt": "x", "temperature": NaN}'):
        problem(rest.post("/optimize", content=text, headers=json_type), 422)
    problem(rest.post("/optimize", content=b'{"raw_prompt": "a page may not send this"}'), 422)
    problem(rest.get("/nothing"), 404)
    assert problem(rest.get("/optimize"), 405)["title"] == "Method Not Allowed"


@pytest.mark.parametrize(
    ("kind", "status"), [("invalid", 422), ("busy", 503), ("denied", 502), ("internal", 502), ("not found", 503)]
)
@pytest.mark.parametrize("path", ["/optimize", "/optimize/stream", "/feedback"])
def test_what_triton_says_becomes_a_status(
    rest: httpx2.Client, triton: FakeServer, kind: Any, status: int, path: str
) -> None:
    triton.fail(kind, "Request for unknown model: 'x'" if kind == "not found" else "max_length, at secret-host:8001")
    told = problem(rest.post(path, json=FEEDBACK if path == "/feedback" else PROMPT), status)
    assert ("secret-host" in told["detail"]) == (kind == "invalid"), "only what the caller can mend is passed on"


def test_a_late_answer_is_504(start: Start, triton: FakeServer) -> None:
    triton.delay_s = 5
    rest = start(lambda: triton.async_client(retries=0, timeout=0.1))
    assert "deadline_ms" in problem(rest.post("/optimize", json=PROMPT), 504)["detail"]


def test_a_stream_that_fails_later_ends_with_an_error(rest: httpx2.Client, triton: FakeServer, log: Path) -> None:
    triton.fail("busy", "the queue is full", after=1)
    response = rest.post("/optimize/stream", json=PROMPT)
    assert response.status_code == 200
    names, data = zip(*events(response.text), strict=True)
    assert names == ("piece", "error")
    assert (data[-1]["status"], data[-1]["request_id"]) == (503, response.headers["x-request-id"])
    (line,) = logged(log)
    assert (line["level"], line["status"], line["end_status"]) == ("error", 200, 503)
    assert line["error"].startswith("ServerUnavailableError: ")


def test_a_defect_is_a_problem_too(start: Start, log: Path) -> None:
    class Broken(FakeServer):
        def receive(self, request: Any) -> Any:
            raise RuntimeError(f"a defect at {request.inputs['raw_prompt']}")

    rest = start(lambda: Broken().async_client())
    told = problem(rest.post("/optimize", json=PROMPT), 500)
    assert "defect" not in told["detail"]
    (line,) = logged(log)
    assert (line["level"], line["error"], line["route"]) == ("error", "RuntimeError", "/optimize")
    assert line["request_id"] == told["request_id"]
    assert "in receive" in line["stack"]
    assert PROMPT["raw_prompt"] not in log.read_text()


@pytest.mark.parametrize("path", ["/optimize", "/optimize/stream"])
@pytest.mark.parametrize("read", [False, True])
def test_who_leaves_cancels_the_decode(rest: httpx2.Client, triton: FakeServer, path: str, read: bool) -> None:
    triton.delay_s = 0.2 if path.endswith("stream") and read else 5
    left = threading.Event()

    def leave() -> None:
        with httpx2.Client(base_url=rest.base_url, timeout=0.5, trust_env=False) as client:
            try:
                with client.stream("POST", path, json=PROMPT) as response:
                    if read:
                        next(response.iter_raw())
            except httpx2.TimeoutException:
                pass
        left.set()

    threading.Thread(target=leave).start()
    assert left.wait(10)
    wait_for(lambda: triton.cancelled == {triton.requests[0].request_id})


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def test_a_body_over_the_limit_is_refused(start: Start, triton: FakeServer) -> None:
    rest = start(max_body=1000)
    json_type = {"content-type": "application/json"}
    problem(rest.post("/optimize", content=b" " * 1001, headers=json_type), 413)
    problem(rest.post("/optimize", content=iter([b" " * 600] * 2), headers=json_type), 413)
    assert rest.post("/optimize", json=PROMPT).status_code == 200


def test_the_largest_feedback_fits(rest: httpx2.Client) -> None:
    text = "\U0001f600" * 32768  # 12 bytes a character as JSON escapes
    body = {**FEEDBACK, "raw_prompt": text, "enhanced_prompt": text, "edited_prompt": text}
    headers = {"content-type": "application/json"}
    assert rest.post("/feedback", content=json.dumps(body).encode(), headers=headers).status_code == 201


def test_request_ids(rest: httpx2.Client) -> None:
    assert rest.get("/health", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    for bad in ("x" * 129, "a b", "é".encode()):
        assert len(rest.get("/health", headers={"x-request-id": bad}).headers["x-request-id"]) == 32


@pytest.mark.parametrize("path", ["/optimize", "/optimize/stream"])
def test_null_is_the_default_of_every_option(rest: httpx2.Client, triton: FakeServer, path: str) -> None:
    options = set(OptimizeRequest.model_fields) - {"raw_prompt"}
    assert len(options) >= 11
    for names in (*([name] for name in options), options):
        assert rest.post(path, json={**PROMPT, **dict.fromkeys(names)}).status_code == 200
    assert {tuple(request.inputs) for request in triton.requests} == {("raw_prompt", "deadline_ms")}
    assert all(29_000 < request.inputs["deadline_ms"] <= 30_000 for request in triton.requests)  # the gateway's
    problem(rest.post(path, json={"raw_prompt": None}), 422)


def test_null_is_the_default_of_every_optional_field_of_feedback(rest: httpx2.Client, triton: FakeServer) -> None:
    optional = set(FeedbackRequest.model_fields) - set(FEEDBACK)
    assert len(optional) == 5
    for number, names in enumerate((*([name] for name in optional), optional)):
        body = {**FEEDBACK, "request_id": f"r{number}"}
        assert rest.post("/feedback", json={**body, **dict.fromkeys(names)}).status_code == 201
        assert triton.feedback[f"r{number}"] == body


@pytest.mark.parametrize("path", ["/health", "/", "/docs", "/metrics", "/openapi.json"])
def test_head_answers_as_get_without_a_body(rest: httpx2.Client, path: str) -> None:
    get, head = rest.get(path), rest.head(path)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-type", "content-security-policy"):
        assert head.headers.get(name) == get.headers.get(name)
    if path != "/metrics":  # which counts the questions for it
        assert head.headers["content-length"] == str(len(get.content))


def test_head_of_health_tells_what_get_tells(rest: httpx2.Client, triton: FakeServer) -> None:
    triton.live = False
    assert [rest.head("/health").status_code, rest.get("/health").status_code] == [503, 503]
    assert rest.head("/optimize").status_code == 405


@pytest.mark.parametrize("path", ["/optimize", "/optimize/stream", "/feedback"])
@pytest.mark.parametrize("kind", ["invalid", "busy", "internal"])
def test_an_error_has_one_request_id(rest: httpx2.Client, triton: FakeServer, path: str, kind: Any) -> None:
    triton.fail(kind, "max_length is wrong")
    body = FEEDBACK if path == "/feedback" else PROMPT
    answer = rest.post(path, json=body, headers={"x-request-id": "mine"})
    assert (answer.headers["x-request-id"], answer.json()["request_id"]) == ("mine", "mine")
    assert "(request" not in answer.json()["detail"]


def test_what_went_wrong_here_is_logged_as_an_error(start: Start, triton: FakeServer, log: Path) -> None:
    rest = start(lambda: triton.async_client(retries=0, timeout=0.3))
    levels = []
    for kind in ("invalid", "busy", "internal", None):
        if kind:
            triton.fail(kind, "max_length")
        else:
            triton.delay_s = 2
        status = rest.post("/optimize", json=PROMPT).status_code
        levels.append((status, logged(log, count=len(levels) + 1)[-1]["level"]))
    assert levels == [(422, "info"), (503, "error"), (502, "error"), (504, "error")]


@pytest.mark.parametrize("text", NEEDS_OPERATOR)
def test_feedback_that_needs_the_operator_is_no_try_again(rest: httpx2.Client, triton: FakeServer, text: str) -> None:
    triton.fail("internal", text)
    assert problem(rest.post("/feedback", json=FEEDBACK), 502)["detail"] == text
    triton.fail("internal", text, model=FEEDBACK_MODEL)
    assert rest.get("/health").json() == {**READY, "feedback": "damaged"}


def test_the_log_has_a_line_a_request_without_the_prompt(rest: httpx2.Client, log: Path) -> None:
    rest.post("/optimize", json={"raw_prompt": "very private"}, headers={"x-request-id": "one"})
    rest.post("/optimize/stream", json={"raw_prompt": "very private"})
    rest.post("/optimize", json={"raw_prompt": "very private", "top_k": -1})
    first, second, third = logged(log, count=3)
    assert (first["request_id"], first["route"], first["status"]) == ("one", "/optimize", 200)
    assert first["prompt_characters"] == len("very private")
    assert first["tokens"] == second["tokens"] > 0
    assert (third["status"], "top_k" in third["error"]) == (422, True)
    assert "private" not in log.read_text()


MARKER = "SECRET/marker"


@pytest.mark.parametrize(
    "body",
    [
        {"raw_prompt": MARKER, "max_length": 513},
        {"raw_prompt": MARKER, "temperature": MARKER},
        {"raw_prompt": f"{MARKER}\0"},
        {"raw_prompt": MARKER * 9000},
        {"raw_prompt": [MARKER]},
        {"raw_prompt": "x", MARKER: 1},
        {"raw_prompt": "x", "adapter": MARKER},
        {"raw_prompt": "x", "adapter": "marker"},
        {**FEEDBACK, "comment": MARKER, "rating": 5},
        {**FEEDBACK, "comment": MARKER, "user": 1},
        [MARKER],
        MARKER,
    ],
    ids=lambda body: str(body)[:40],
)
def test_no_error_brings_a_request_or_a_path_into_the_log(rest: httpx2.Client, log: Path, body: Any) -> None:
    json_type = {"content-type": "application/json"}
    for path in ("/optimize", "/optimize/stream", "/feedback"):
        problem(rest.post(path, json=body), 422)
        problem(rest.post(path, content=json.dumps(body)), 422)
        assert rest.post(path, content=json.dumps(body)[:-1], headers=json_type).status_code == 422
    problem(rest.get(f"/{MARKER}"), 404)
    assert len(logged(log, count=10)) == 10
    for text in ("marker", "SECRET", ".py", str(Path(app.__file__).parent)):
        assert text not in log.read_text()


@pytest.mark.parametrize("path", ["/optimize", "/optimize/stream", "/feedback", "/health", "/metrics", "/"])
def test_pages_of_other_web_sites_are_refused_where_there_are_no_keys(
    start: Start, triton: FakeServer, path: str
) -> None:
    rest = start(allowed_hosts=("prompts.example",), cors_origins=("https://a.org",))
    bodies = {"/optimize": PROMPT, "/optimize/stream": PROMPT, "/feedback": FEEDBACK}
    method, body = "POST" if path in bodies else "GET", bodies.get(path)
    for headers in (
        {"host": "evil.example"},
        {"host": "evil.example", "origin": "http://evil.example"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
    ):
        problem(rest.request(method, path, json=body, headers=headers), 403)
    assert triton.requests == []
    for headers in (
        {},
        {"origin": str(rest.base_url).rstrip("/")},
        {"origin": "https://a.org"},
        {"host": "prompts.example", "origin": "https://prompts.example"},
    ):
        assert rest.request(method, path, json=body, headers=headers).is_success


def test_prompts_are_logged_on_demand(start: Start, log: Path) -> None:
    start(log_prompts=True).post("/optimize", json=PROMPT)
    assert logged(log)[0]["raw_prompt"] == PROMPT["raw_prompt"]


def test_metrics(rest: httpx2.Client) -> None:
    rest.post("/optimize", json=PROMPT)
    rest.get("/nothing")
    text = rest.get("/metrics").text
    assert 'neuro_latent_gateway_requests_total{route="/optimize",status="200"} 1.0' in text
    assert 'neuro_latent_gateway_requests_total{route="other",status="404"} 1.0' in text
    assert 'neuro_latent_gateway_request_seconds_count{route="/optimize"} 1.0' in text
    assert "neuro_latent_gateway_tokens_total 2.0" in text


def test_docs_and_page_need_nothing_from_elsewhere(rest: httpx2.Client) -> None:
    docs = rest.get("/docs").text
    assert "swagger-ui-bundle.js" in docs
    page = rest.get("/")
    for text in (docs, page.text):
        assert not re.search(r"""(src|href|url\(|from|import)\W*(https?:)?//""", text)
    assert "script-src 'sha256-" in page.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/openapi.json", "/health", "/metrics", "/nothing", "/static-offline-docs/swagger-ui.css"]
)
def test_no_answer_is_guessed_at_or_framed(rest: httpx2.Client, path: str) -> None:
    for answer in (rest.get(path), rest.post(path, content=b"x")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "frame-ancestors 'none'" in policy
        assert "script-src 'self' 'unsafe-inline'" not in policy


def test_the_docs_may_run_their_own_script(rest: httpx2.Client) -> None:
    docs = rest.get("/docs")
    (script,) = re.findall(r"<script>(.*?)</script>", docs.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{digest}'" in docs.headers["content-security-policy"]


def test_a_deadline_counts_from_the_request_on(rest: httpx2.Client, triton: FakeServer) -> None:
    def slowly() -> Iterator[bytes]:
        yield b'{"raw_prompt": "x", '
        time.sleep(0.5)
        yield b'"deadline_ms": 2000}'

    for path in ("/optimize", "/optimize/stream"):
        rest.post(path, content=slowly(), headers={"content-type": "application/json"})
    # Half a second less, but for what the server was late in seeing the beginning.
    assert all(1 <= request.inputs["deadline_ms"] <= 1800 for request in triton.requests)
    assert len(triton.requests) == 2


def test_an_answer_that_was_empty_can_be_rated(rest: httpx2.Client, triton: FakeServer) -> None:
    assert rest.post("/feedback", json={**FEEDBACK, "enhanced_prompt": ""}).status_code == 201
    assert triton.feedback["r1"]["enhanced_prompt"] == ""
    del (missing := {**FEEDBACK})["enhanced_prompt"]
    problem(rest.post("/feedback", json=missing), 422)


def test_cors_is_off_unless_told(start: Start) -> None:
    ask = {"origin": "https://a.org", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in start().options("/optimize", headers=ask).headers
    rest = start(cors_origins=("https://a.org",))
    assert rest.options("/optimize", headers=ask).headers["access-control-allow-origin"] == "https://a.org"
    assert rest.options("/optimize", headers={**ask, "origin": "https://b.org"}).status_code == 400


def test_everything_that_a_route_can_answer_is_documented(rest: httpx2.Client) -> None:
    schema = rest.get("/openapi.json").json()
    assert schema["components"]["schemas"]["Sequence"]["properties"]["finish_reason"]["enum"] == [*FINISH_REASONS]
    for path in ("/optimize", "/optimize/stream", "/feedback"):
        answers = schema["paths"][path]["post"]["responses"]
        assert {int(status) for status in answers} >= set(app.ANSWERS)
        assert set(answers["422"]["content"]) == {"application/problem+json"}
        assert "Retry-After" in answers["503"]["headers"]


def test_feedback_of_a_server_without_that_model(rest: httpx2.Client, triton: FakeServer) -> None:
    triton.models.remove(FEEDBACK_MODEL)
    problem(rest.post("/feedback", json=FEEDBACK), 503)


def test_a_full_disk_takes_lines_of_the_log_and_no_answer(triton: FakeServer) -> None:
    config = GatewayConfig(port=0, log_file=Path("/dev/full"))
    with GatewayServer(config, lambda: triton.async_client(retries=0)) as server:
        server.start()
        answers = [httpx2.post(f"{server.url}/optimize", json=PROMPT, trust_env=False) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
