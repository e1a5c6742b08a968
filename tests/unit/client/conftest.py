"""Two small real servers that answer by the contract, one over gRPC and one over HTTP, moved by one script.

They behave as Triton 24.10 was seen to behave: the statuses, the texts, and its habits (``generate_stream`` answers any
error before its first event with 400, and any later one inside the stream).
"""

import json
import struct
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from neuro_latent_client import Client, protocol

STATUSES = {  # kind of failure: gRPC code, HTTP status
    "invalid": (grpc.StatusCode.INVALID_ARGUMENT, 400),
    "busy": (grpc.StatusCode.UNAVAILABLE, 503),
    "internal": (grpc.StatusCode.INTERNAL, 500),
    "not found": (grpc.StatusCode.NOT_FOUND, 404),
    "no version": (grpc.StatusCode.UNAVAILABLE, 400),
}


class Failure(Exception):
    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.code, self.status = STATUSES[kind]


def response(text: str, index: int = 0, finish_reason: str = "", replaces: bool = False) -> dict[str, list[Any]]:
    return {
        "enhanced_prompt": [text],
        "score": [-0.5],
        "generated_tokens": [3],
        "finish_reason": [finish_reason],
        "truncated": [False],
        "model_version": ["1"],
        "adapter_version": ["mini-1"],
        "sequence_index": [index],
        "replaces": [replaces],
    }


@dataclass
class Script:
    """What the server does, set by a test, and what it saw."""

    live: bool = True
    ready: bool = True
    models: set[str] = field(default_factory=lambda: {protocol.UNARY_MODEL, protocol.STREAM_MODEL})
    failure: Failure | None = None
    failure_after: int = 0  # responses of a stream that go out before the failure
    answer: dict[str, list[Any]] | None = None
    responses: list[dict[str, list[Any]]] = field(
        default_factory=lambda: [response("Write "), response("a\u2028test."), response("", finish_reason="stop")]
    )
    delay_s: float = 0.0  # before a unary answer, and between the responses of a stream
    seen: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def receive(self, model: str, request_id: str, inputs: dict[str, Any], headers: dict[str, str]) -> None:
        self.seen.append({"model": model, "request_id": request_id, "inputs": inputs})
        self.headers.append(headers)
        if model not in self.models:
            raise Failure("not found", f"Request for unknown model: '{model}' is not found")
        if self.failure and not self.failure_after:
            raise self.failure

    def unary(self, inputs: dict[str, Any]) -> dict[str, list[Any]]:
        time.sleep(self.delay_s)
        n = inputs.get("num_return_sequences", 1)
        return self.answer or {
            "enhanced_prompt": [f"{inputs['raw_prompt']}, well: {i}" for i in range(n)],
            "score": [-0.25 * (i + 1) for i in range(n)],
            "generated_tokens": [5 + i for i in range(n)],
            "finish_reason": ["stop"] * n,
            "truncated": [True],
            "model_version": ["1"],
            "adapter_version": ["mini-1"],
        }

    def stream(self) -> Iterator[dict[str, list[Any]]]:
        for count, item in enumerate(self.responses):
            if self.failure and count == self.failure_after:
                raise self.failure
            yield item
            if self.cancelled.wait(self.delay_s):
                return


def pack(kind: str, values: list[Any]) -> bytes:
    if kind == "BYTES":
        return b"".join(struct.pack("<I", len(v.encode())) + v.encode() for v in values)
    return struct.pack(f"<{len(values)}{ {'INT32': 'i', 'INT64': 'q', 'FP32': 'f', 'BOOL': '?'}[kind] }", *values)


def unpack(kind: str, raw: bytes) -> Any:
    if kind == "BYTES":
        (length,) = struct.unpack_from("<I", raw)
        assert length == len(raw) - 4
        return raw[4:].decode()
    return struct.unpack({"INT32": "<i", "INT64": "<q", "FP32": "<f"}[kind], raw)[0]


class GrpcServicer(service_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    def ServerLive(self, request: Any, context: Any) -> Any:
        return service_pb2.ServerLiveResponse(live=self.script.live)

    def ServerReady(self, request: Any, context: Any) -> Any:
        return service_pb2.ServerReadyResponse(ready=self.script.ready)

    def ModelReady(self, request: Any, context: Any) -> Any:
        return service_pb2.ModelReadyResponse(ready=request.name in self.script.models)

    def ModelMetadata(self, request: Any, context: Any) -> Any:
        return service_pb2.ModelMetadataResponse(name=request.name, versions=["1", "2"])

    def ModelInfer(self, request: Any, context: Any) -> Any:
        try:
            return self.encode(self.script.unary(self.receive(request, context)))
        except Failure as failure:
            context.abort(failure.code, str(failure))

    def ModelStreamInfer(self, requests: Any, context: Any) -> Iterator[Any]:
        context.add_callback(lambda: None if context.code() else self.script.cancelled.set())
        try:
            # Triton 24.10 may crash on the errors and cancellations of streams that carry it.
            assert "triton_grpc_error" not in dict(context.invocation_metadata())
            request = next(requests)
            if request.model_name == protocol.CANCEL_MODEL:  # the engine ends the request, and so its stream ends
                self.script.cancelled.set()
                return
            self.receive(request, context)
            for item in self.script.stream():
                yield service_pb2.ModelStreamInferResponse(infer_response=self.encode(item))
            context.set_code(grpc.StatusCode.OK)
        except Failure as failure:
            yield service_pb2.ModelStreamInferResponse(error_message=str(failure))
            context.set_code(grpc.StatusCode.OK)

    def receive(self, request: Any, context: Any) -> dict[str, Any]:
        inputs = {}
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
            assert list(tensor.shape) == [1, 1]
            assert tensor.datatype == protocol.INPUT_TYPES[tensor.name]
            inputs[tensor.name] = unpack(tensor.datatype, raw)
        self.script.receive(request.model_name, request.id, inputs, dict(context.invocation_metadata()))
        return inputs

    @staticmethod
    def encode(answer: dict[str, list[Any]]) -> Any:
        message = service_pb2.ModelInferResponse()
        for name, values in answer.items():
            kind = protocol.STREAM_OUTPUT_TYPES[name]
            message.outputs.add(name=name, datatype=kind, shape=[1, len(values)])
            message.raw_output_contents.append(pack(kind, values))
        return message


class HttpHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: Script

    def log_message(self, *args: Any) -> None:
        """Keep the test output quiet."""

    def do_GET(self) -> None:
        script, parts = self.script, self.path.split("/")[2:]
        if parts[0] == "health":
            self.reply(200 if {"live": script.live, "ready": script.ready}[parts[1]] else 400, {})
        elif parts[1] not in script.models:
            self.reply(400, {"error": "Model version not ready"})
        else:
            self.reply(200, {"name": parts[1], "versions": ["1", "2"]})

    def do_POST(self) -> None:
        _, _, _, model, verb = self.path.split("/")
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            if verb == "infer":
                for tensor in body["inputs"]:
                    assert tensor["shape"] == [1, 1]
                    assert tensor["datatype"] == protocol.INPUT_TYPES[tensor["name"]]
                inputs = {tensor["name"]: tensor["data"][0] for tensor in body["inputs"]}
                self.script.receive(model, body["id"], inputs, headers)
                outputs = [
                    {"name": n, "datatype": protocol.OUTPUT_TYPES[n], "shape": [1, len(v)], "data": v}
                    for n, v in self.script.unary(inputs).items()
                ]
                self.reply(200, {"id": body["id"], "outputs": outputs})
            else:
                self.script.receive(model, body.pop("id"), body, headers)
                self.stream()
        except Failure as failure:
            as_event = verb == "generate_stream" and failure.status != 404
            self.reply(400 if as_event else failure.status, {"error": str(failure)}, as_event)
        except (BrokenPipeError, ConnectionResetError):
            self.script.cancelled.set()
            self.close_connection = True

    def stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for item in self.script.stream():
                self.chunk({name: values[0] for name, values in item.items()})
        except Failure as failure:
            self.chunk({"error": str(failure)})
        self.wfile.write(b"0\r\n\r\n")

    def chunk(self, fields: dict[str, Any]) -> None:
        data = f"data: {json.dumps(fields, ensure_ascii=False)}\n\n".encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def reply(self, status: int, fields: dict[str, Any], as_event: bool = False) -> None:
        text = json.dumps(fields)
        data = (f"data: {text}\n\n" if as_event else text).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8" if as_event else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def make_response() -> Any:
    return response


@pytest.fixture
def make_failure() -> type[Failure]:
    return Failure


@pytest.fixture
def grpc_url(script: Script) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(8))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(GrpcServicer(script), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"grpc://127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def http_url(script: Script) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (HttpHandler,), {"script": script}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(params=["grpc", "http"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client
