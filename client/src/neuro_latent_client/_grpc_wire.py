"""gRPC's messages, errors and settings, for both of its transports."""

import struct
from collections.abc import Callable
from typing import Any, Final

import grpc

from . import triton_pb2
from ._failures import Failures, names_unknown_model
from ._request import WIRE_TYPES, InferRequest, Scalar
from ._settings import Settings
from ._transport import Tensors
from .errors import NeuroLatentError
from .results import ServedModel
from .tls import TlsConfig

END_S: Final = 2.0
"""How long a stream that was closed may take to end before its call is cancelled."""

_SERVICE: Final = "/inference.GRPCInferenceService/"
_STREAM_METHOD: Final = "ModelStreamInfer"
_RESTRICTED: Final = "protocol is restricted"  # Triton says so with UNAVAILABLE where it wants a certain header
_STRUCT_CODES: Final = {"INT32": "i", "INT64": "q", "FP32": "f", "BOOL": "?"}

QUESTIONS: Final[dict[str, tuple[str, Callable[[str], Any], Callable[[Any], Any]]]] = {
    "live": ("ServerLive", lambda model: triton_pb2.ServerLiveRequest(), lambda answer: answer.live),
    "ready": ("ServerReady", lambda model: triton_pb2.ServerReadyRequest(), lambda answer: answer.ready),
    "model_ready": (
        "ModelReady",
        lambda model: triton_pb2.ModelReadyRequest(name=model),
        lambda answer: answer.ready,
    ),
    "model_versions": (
        "ModelMetadata",
        lambda model: triton_pb2.ModelMetadataRequest(name=model),
        lambda answer: list(answer.versions),
    ),
    "index": (
        "RepositoryIndex",
        lambda model: triton_pb2.RepositoryIndexRequest(),
        lambda answer: tuple(
            ServedModel(model.name, model.version, model.state == "READY", model.reason) for model in answer.models
        ),
    ),
    "load": (
        "RepositoryModelLoad",
        lambda model: triton_pb2.RepositoryModelLoadRequest(model_name=model),
        lambda answer: None,
    ),
}
"""For each question about the server: the method, its message for a model, and how its answer is read."""


def make_channel(grpc_like: Any, settings: Settings) -> Any:
    """A channel of ``grpc`` or ``grpc.aio``; it connects on first use and reconnects by itself."""
    endpoint = settings.endpoint
    options = [
        ("grpc.max_send_message_length", -1),  # no limit here: the server has its own
        ("grpc.max_receive_message_length", -1),
        ("grpc.initial_reconnect_backoff_ms", 100),  # else no retry meets a server that has just come back
        ("grpc.max_reconnect_backoff_ms", 1000),  # a server that comes back is found within a second
        ("grpc.enable_http_proxy", 0 if endpoint.is_loopback else 1),
    ]
    if not endpoint.is_encrypted:
        return grpc_like.insecure_channel(endpoint.netloc, options)
    credentials = grpc.ssl_channel_credentials(*(settings.tls or TlsConfig()).read())
    return grpc_like.secure_channel(endpoint.netloc, credentials, options)


def make_methods(channel: Any) -> dict[str, Any]:
    """The methods of Triton's service on a channel of either library, by name."""
    methods = {_STREAM_METHOD: channel.stream_stream(*_route(_STREAM_METHOD, "ModelInfer", _STREAM_METHOD))}
    for name in ("ModelInfer", *(method for method, _, _ in QUESTIONS.values())):
        methods[name] = channel.unary_unary(*_route(name, name, name))
    return methods


def _route(name: str, request: str, response: str) -> tuple[str, Callable[[Any], bytes], Callable[[bytes], Any]]:
    """The path of a method, and how its messages become bytes and back."""
    request_type, response_type = getattr(triton_pb2, f"{request}Request"), getattr(triton_pb2, f"{response}Response")
    return _SERVICE + name, request_type.SerializeToString, response_type.FromString


def encode(request: InferRequest) -> Any:
    message = triton_pb2.ModelInferRequest(model_name=request.model, id=request.request_id)
    for name, value in request.inputs.items():
        triton_type = WIRE_TYPES[name]
        message.inputs.add(name=name, datatype=triton_type, shape=[1, 1])
        message.raw_input_contents.append(_pack(triton_type, value))
    return message


def decode(response: Any, failures: Failures) -> Tensors:
    if len(response.outputs) != len(response.raw_output_contents):
        raise failures.server("the answer's tensors and their contents do not match")
    pairs = zip(response.outputs, response.raw_output_contents, strict=True)
    try:
        return {output.name: _unpack(output.datatype, raw) for output, raw in pairs}
    except (struct.error, KeyError) as error:
        raise failures.server(f"a tensor of the answer cannot be read: {error}") from error


def decode_streamed(response: Any, failures: Failures) -> Tensors:
    """One response of a stream, where an error is a text."""
    if response.error_message:
        raise failures.without_status(response.error_message)
    return decode(response.infer_response, failures)


def error_of(error: Any, failures: Failures) -> NeuroLatentError:
    """What an RpcError of either library means."""
    code, text = error.code(), error.details() or ""
    if code is grpc.StatusCode.NOT_FOUND or names_unknown_model(text):
        return failures.model_not_found(text)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return failures.invalid(text)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return failures.deadline()
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED) or _RESTRICTED in text:
        return failures.denied(text)
    if "HTTP/2" in text and ("parsing" in text or "settings frame" in text.lower()):
        return failures.other_protocol("an HTTP port", "gRPC")
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
        return failures.unavailable(text)
    return failures.server(f"{text or 'no reason given'} ({code.name})")


def _pack(triton_type: str, value: Scalar) -> bytes:
    if isinstance(value, str):
        data = value.encode("utf-8")
        return struct.pack("<I", len(data)) + data
    return struct.pack("<" + _STRUCT_CODES[triton_type], value)


def _unpack(triton_type: str, raw: bytes) -> list[Scalar]:
    if triton_type != "BYTES":
        return [value for (value,) in struct.iter_unpack("<" + _STRUCT_CODES[triton_type], raw)]
    values: list[Scalar] = []
    offset = 0
    while offset < len(raw):
        (length,) = struct.unpack_from("<I", raw, offset)
        values.append(raw[offset + 4 : offset + 4 + length].decode("utf-8", errors="replace"))
        offset += 4 + length
    return values
