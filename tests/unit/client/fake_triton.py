"""Two small real servers that answer by the contract, one over gRPC and one over HTTP, moved by one script.

They behave as Triton 24.10 was seen to behave: the statuses, the texts, and its habits (``generate_stream`` answers any
error before its first event with 400, and any later one inside the stream).
"""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from neuro_latent_client._request import WIRE_TYPES, InferRequest
from neuro_latent_client.testing import Failure, FakeServer
from neuro_latent_client.transports.base import Tensors
from neuro_latent_core import protocol

OUTPUT_TYPES = {**protocol.STREAM_OUTPUT_TYPES, **protocol.FEEDBACK_OUTPUT_TYPES}

STATUSES = {  # kind of failure: gRPC code, HTTP status
    "invalid": (grpc.StatusCode.INVALID_ARGUMENT, 400),
    "busy": (grpc.StatusCode.UNAVAILABLE, 503),
    "internal": (grpc.StatusCode.INTERNAL, 500),
    "denied": (grpc.StatusCode.UNAUTHENTICATED, 401),
    "not found": (grpc.StatusCode.NOT_FOUND, 404),
    "no version": (grpc.StatusCode.UNAVAILABLE, 400),
}


def response(text: str, index: int = 0, finish_reason: str = "", added: str = "") -> dict[str, list[Any]]:
    return {
        "enhanced_prompt": [text],
        "added": [added],
        "score": [0.5],
        "generated_tokens": [3],
        "finish_reason": [finish_reason],
        "reason": [""],
        "truncated": [False],
        "cached": [False],
        "model_version": ["1"],
        "adapter_version": ["mini-1"],
        "sequence_index": [index],
    }


@dataclass
class Script(FakeServer):
    """What the servers do, set by a test, and what they saw. Its answers are odd enough to tell fields apart."""

    hung_up: list[str] = field(default_factory=list)  # gRPC streams that were cancelled as calls
    answer: dict[str, list[Any]] | None = None
    responses: list[dict[str, list[Any]]] = field(
        default_factory=lambda: [response("Write "), response("a\u2028test."), response("", finish_reason="stop")]
    )

    def respond(self, request: InferRequest) -> Iterator[Tensors]:
        if request.model == protocol.STREAM_MODEL:
            yield from self.responses
        elif request.model == protocol.UNARY_MODEL:
            whole = self.answer or self.unary(request.inputs)
            every = request.inputs.get(protocol.ADAPTER) == protocol.EVERY_ADAPTER
            yield {**whole, "adapter_version": [json.dumps(self.adapters)]} if every else whole
        else:
            yield from super().respond(request)

    def unary(self, inputs: Mapping[str, Any]) -> dict[str, list[Any]]:
        n = inputs.get("num_return_sequences", 1)
        return {
            "enhanced_prompt": [f"{inputs['raw_prompt']}\n\nWell: {i}" for i in range(n)],
            "added": [f"Well: {i}" for i in range(n)],
            "score": [0.25 * (i + 1) for i in range(n)],
            "generated_tokens": [5 + i for i in range(n)],
            "finish_reason": ["stop"] * n,
            "reason": [""] * n,
            "truncated": [True],
            "cached": [True],
            "model_version": ["1"],
            "adapter_version": ["mini-1"],
        }

    def infer(self, request: InferRequest) -> Tensors:
        """For the servers: the one response of a model that does not stream, after its time."""
        responses = self.receive(request)
        self.pause(request.request_id, self.delay_s)
        return next(responses)

    def stream(self, request: InferRequest) -> Iterator[Tensors]:
        """For the servers: the responses at their pace. A failure before the first is raised at once."""

        def paced(responses: Iterator[Tensors]) -> Iterator[Tensors]:
            for item in responses:
                yield item
                if self.pause(request.request_id, self.delay_s):
                    return

        return paced(self.receive(request))

    def seen_inputs(self) -> list[dict[str, Any]]:
        """What was asked, without the deadline, which depends on the time."""
        return [
            {name: value for name, value in request.inputs.items() if name != "deadline_ms"}
            for request in self.requests
        ]


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
        return service_pb2.ModelMetadataResponse(name=request.name, versions=["1"])

    def RepositoryIndex(self, request: Any, context: Any) -> Any:
        index = [
            {"name": model.name, "version": model.version, "state": "READY", "reason": model.problem}
            for model in self.script.index()
        ]
        return service_pb2.RepositoryIndexResponse(models=index)

    def ModelInfer(self, request: Any, context: Any) -> Any:
        try:
            return self.encode(self.script.infer(self.request(request, context)))
        except Failure as failure:
            context.abort(STATUSES[failure.kind][0], str(failure))

    def ModelStreamInfer(self, requests: Any, context: Any) -> Iterator[Any]:
        # Triton 24.10 may crash on the errors and cancellations of streams that carry it.
        assert "triton_grpc_error" not in dict(context.invocation_metadata())
        message = next(requests)
        context.add_callback(lambda: None if context.code() else self.script.hung_up.append(message.id))
        request = self.request(message, context)
        try:
            if request.model == protocol.CANCEL_MODEL:  # the engine ends the request, and so its stream ends
                self.script.cancel(request.inputs[protocol.CANCEL_INPUT])
            else:
                for item in self.script.stream(request):
                    yield service_pb2.ModelStreamInferResponse(infer_response=self.encode(item))
        except Failure as failure:
            if failure.kind == "denied":  # by what stands before Triton
                context.abort(STATUSES[failure.kind][0], str(failure))
            yield service_pb2.ModelStreamInferResponse(error_message=str(failure))
        context.set_code(grpc.StatusCode.OK)

    @staticmethod
    def request(message: Any, context: Any) -> InferRequest:
        inputs = {}
        for tensor, raw in zip(message.inputs, message.raw_input_contents, strict=True):
            assert list(tensor.shape) == [1, 1]
            assert tensor.datatype == WIRE_TYPES[tensor.name]
            inputs[tensor.name] = unpack(tensor.datatype, raw)
        headers = dict(context.invocation_metadata())
        return InferRequest(message.model_name, message.id, inputs, context.time_remaining(), headers)

    @staticmethod
    def encode(answer: dict[str, list[Any]]) -> Any:
        message = service_pb2.ModelInferResponse()
        for name, values in answer.items():
            kind = OUTPUT_TYPES[name]
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
            self.reply(200, {"name": parts[1], "versions": ["1"]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v2/repository/index":
            self.reply(200, [{"name": m.name, "version": m.version, "state": "READY"} for m in self.script.index()])
            return
        _, _, _, model, verb = self.path.split("/")
        if model == protocol.CANCEL_MODEL:
            self.script.cancel(body[protocol.CANCEL_INPUT])
            self.reply(200, {}, as_event=True)
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = InferRequest(model, body.pop("id"), body, 60.0, headers)
        try:
            if verb == "infer":
                self.infer(replace(request, inputs={tensor["name"]: self.value(tensor) for tensor in body["inputs"]}))
            else:
                self.stream(self.script.stream(request))
        except Failure as failure:
            status = STATUSES[failure.kind][1]
            as_event = verb == "generate_stream" and status not in (401, 404)
            self.reply(400 if as_event else status, {"error": str(failure)}, as_event)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    @staticmethod
    def value(tensor: dict[str, Any]) -> Any:
        assert tensor["shape"] == [1, 1]
        assert tensor["datatype"] == WIRE_TYPES[tensor["name"]]
        return tensor["data"][0]

    def infer(self, request: InferRequest) -> None:
        outputs = [
            {"name": name, "datatype": OUTPUT_TYPES[name], "shape": [1, len(values)], "data": values}
            for name, values in self.script.infer(request).items()
        ]
        self.reply(200, {"id": request.request_id, "outputs": outputs})

    def stream(self, responses: Iterator[Tensors]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for item in responses:
                self.chunk({name: values[0] for name, values in item.items()})
        except Failure as failure:
            self.chunk({"error": str(failure)})
        self.wfile.write(b"0\r\n\r\n")

    def chunk(self, fields: dict[str, Any]) -> None:
        data = f"data: {json.dumps(fields, ensure_ascii=False)}\n\n".encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def reply(self, status: int, fields: Any, as_event: bool = False) -> None:
        text = json.dumps(fields)
        data = (f"data: {text}\n\n" if as_event else text).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8" if as_event else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
