"""Traces through the gateway: to Triton by gRPC, to an upstream, and spans to a collector by OTLP over HTTP."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from tritonclient.grpc import service_pb2_grpc

from neuro_latent_client import AsyncClient
from tests.unit.client.fake_triton import GrpcServicer, Script
from tests.unit.serving.gateway.conftest import Run, Start
from tests.unit.serving.gateway.test_gateway_routes import FEEDBACK, PROMPT
from tests.unit.serving.gateway.upstream import Upstream, running

pytestmark = pytest.mark.slow

ID, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACE = {"traceparent": f"00-{ID}-{PARENT}-01", "tracestate": "them=1"}


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with running(Upstream()) as server:
        yield server


@pytest.fixture
def triton(script: Script) -> Iterator[str]:
    """The address of a real gRPC server."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(GrpcServicer(script), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"grpc://127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def rest(start: Start, triton: str, upstream: Upstream) -> httpx2.Client:
    """A gateway between both."""
    return start(lambda: AsyncClient(triton, retries=0), upstream=upstream.url)


def ask_everything(rest: httpx2.Client, headers: dict[str, str]) -> None:
    chat = {"messages": [{"role": "user", "content": PROMPT["raw_prompt"]}]}
    for path, body in (
        ("/optimize", PROMPT),
        ("/optimize/stream", PROMPT),
        ("/feedback", FEEDBACK),
        ("/v1/chat/completions", {"model": "neuro-latent", **chat}),
        ("/v1/chat/completions", {"model": "neuro-latent", "stream": True, **chat}),
        ("/v1/chat/completions?api-key=sk-secret", {"model": "large", **chat}),
    ):
        assert rest.post(path, json=body, headers=headers).is_success


def test_a_trace_goes_on_to_triton_and_the_upstream(rest: httpx2.Client, script: Script, upstream: Upstream) -> None:
    ask_everything(rest, TRACE)
    assert [request.headers.get("traceparent") for request in script.requests] == [TRACE["traceparent"]] * 6
    assert {name: upstream.headers[0][name] for name in TRACE} == TRACE


def test_what_is_no_trace_does_not_count(rest: httpx2.Client, script: Script) -> None:
    ask_everything(rest, {"traceparent": "00-short"})
    ask_everything(rest, {})
    assert len(script.requests) == 12
    assert not any("traceparent" in request.headers for request in script.requests)


WITHOUT = """
import sys
from neuro_latent_client.testing import FakeServer
from neuro_latent_serving.gateway.server import GatewayConfig, GatewayServer
with GatewayServer(GatewayConfig(port=0), FakeServer().async_client) as server:
    server.start()
print(*sys.modules)
"""


def test_no_collector_costs_no_import() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, env={}, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "opentelemetry.sdk" not in done.stdout


class Collector(ThreadingHTTPServer):
    """Takes spans by OTLP over HTTP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.raw: list[bytes] = []

    def spans(self) -> Iterator[tuple[dict[str, str], Any]]:
        """Each span, behind the resource that it is of."""
        for raw in self.raw:
            for batch in ExportTraceServiceRequest.FromString(raw).resource_spans:
                resource = {item.key: item.value.string_value for item in batch.resource.attributes}
                for scope in batch.scope_spans:
                    yield from ((resource, span) for span in scope.spans)


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        assert self.path == "/v1/traces"
        self.server.raw.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_spans_reach_the_collector_below_the_callers(
    collector: Collector, script: Script, triton: str, upstream: Upstream, run: Run
) -> None:
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        "OTEL_SERVICE_NAME": "prompts",
    }
    options = ["--triton", triton, "--gateway-port", "0", "--upstream", upstream.url, "--json"]
    process = run("gateway", *options, **variables)
    assert process.stdout is not None
    with httpx2.Client(base_url=json.loads(process.stdout.readline())["gateway"], trust_env=False) as rest:
        ask_everything(rest, TRACE)
        rest.get("/health")
        script.fail("internal", "a defect", after=1)
        failed = rest.post("/optimize/stream", json=PROMPT)
    process.terminate()
    assert PROMPT["raw_prompt"] not in process.communicate(timeout=30)[1]
    found = [span for resource, span in collector.spans() if resource["service.name"] == "prompts"]
    assert [span.name for span in found] == [
        *("POST /optimize", "POST /optimize/stream", "POST /feedback"),
        *["POST /v1/chat/completions"] * 3,
        "POST /optimize/stream",
    ]
    *traced, late = found
    assert {(span.trace_id.hex(), span.parent_span_id.hex()) for span in traced} == {(ID, PARENT)}
    # What a request causes is below its span.
    below = [f"00-{ID}-{span.span_id.hex()}-01" for span in traced]
    assert [request.headers.get("traceparent") for request in script.requests[:6]] == below
    assert {name: upstream.headers[0][name] for name in TRACE} == {**TRACE, "traceparent": below[-1]}
    assert (late.status.code, late.parent_span_id) == (Status.STATUS_CODE_ERROR, b"")
    facts = {item.key: item.value for item in late.attributes}
    (request_id,) = facts["http.response.header.x-request-id"].array_value.values
    assert request_id.string_value == failed.headers["x-request-id"]
    for text in (PROMPT["raw_prompt"].encode(), b"sk-secret"):
        assert not any(text in raw for raw in collector.raw)


def test_a_collector_that_is_away_fails_nothing(run: Run) -> None:
    away = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    process = run("gateway", "--gateway-port", "0", "--json", **away)
    assert process.stdout is not None
    assert httpx2.get(json.loads(process.stdout.readline())["gateway"], trust_env=False).is_success
    process.terminate()
    _, shown = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Failed to export" in shown
