"""gRPC: Triton's generated stubs on a grpcio channel."""

import contextlib
import struct
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from . import protocol
from ._endpoint import Endpoint
from ._failures import Failures, names_unknown_model
from ._request import CANCEL_TIMEOUT_S, InferRequest, Scalar
from ._transport import Tensors
from .errors import NeuroLatentError

_INPUT_TYPES: Final = {**protocol.INPUT_TYPES, protocol.CANCEL_INPUT: "BYTES"}
_STRUCT_CODES: Final = {"INT32": "i", "INT64": "q", "FP32": "f", "BOOL": "?"}


class GrpcTransport:
    """A channel; it connects on first use and reconnects by itself."""

    name = "grpc"

    def __init__(self, endpoint: Endpoint, headers: Mapping[str, str]) -> None:
        options = [
            ("grpc.max_send_message_length", -1),  # no limit here: the server has its own
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_reconnect_backoff_ms", 1000),  # a server that comes back is found within a second
            ("grpc.enable_http_proxy", 0 if endpoint.is_loopback else 1),
        ]
        if endpoint.scheme == "grpcs":
            self._channel = grpc.secure_channel(endpoint.netloc, grpc.ssl_channel_credentials(), options)
        else:
            self._channel = grpc.insecure_channel(endpoint.netloc, options)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._metadata = tuple((name.lower(), value) for name, value in headers.items())
        self._address = endpoint.url

    def infer(self, request: InferRequest) -> Tensors:
        failures = Failures(self._address, request.model, request.request_id)
        response = self._call(self._stub.ModelInfer, _encode(request), request.timeout_s, failures)
        return _decode(response, failures)

    def stream(self, request: InferRequest) -> "GrpcResponseStream":
        # Without the header triton_grpc_error, which gives the errors of a stream a status code: Triton 24.10 can crash
        # (segmentation fault) when a stream that carries it fails or is cancelled.
        call = self._stub.ModelStreamInfer(iter([_encode(request)]), timeout=request.timeout_s, metadata=self._metadata)
        return GrpcResponseStream(call, request.timeout_s, Failures(self._address, request.model, request.request_id))

    def cancel(self, request_id: str) -> None:
        request = InferRequest(protocol.CANCEL_MODEL, "", {protocol.CANCEL_INPUT: request_id}, CANCEL_TIMEOUT_S)
        # ValueError: the channel is closed already.
        with contextlib.suppress(NeuroLatentError, ValueError):
            for _ in self.stream(request):
                pass

    def server_live(self, timeout_s: float) -> bool:
        response = self._call(self._stub.ServerLive, service_pb2.ServerLiveRequest(), timeout_s)
        return bool(response.live)

    def server_ready(self, timeout_s: float) -> bool:
        response = self._call(self._stub.ServerReady, service_pb2.ServerReadyRequest(), timeout_s)
        return bool(response.ready)

    def model_ready(self, model: str, timeout_s: float) -> bool:
        request = service_pb2.ModelReadyRequest(name=model)
        return bool(self._call(self._stub.ModelReady, request, timeout_s, Failures(self._address, model)).ready)

    def model_versions(self, model: str, timeout_s: float) -> list[str]:
        request = service_pb2.ModelMetadataRequest(name=model)
        return list(self._call(self._stub.ModelMetadata, request, timeout_s, Failures(self._address, model)).versions)

    def close(self) -> None:
        self._channel.close()

    def _call(
        self, method: Callable[..., Any], request: object, timeout_s: float, failures: Failures | None = None
    ) -> Any:
        try:
            return method(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise _error_of(error, timeout_s, failures or Failures(self._address)) from error


class GrpcResponseStream:
    """The responses of one ModelStreamInfer call with one request.

    One that is closed early is read to its end first, which comes soon when the request was cancelled at the decoder.
    Cancelling the call itself is the last resort: Triton 24.10 crashes (segmentation fault in its stream handler) after
    a hundred to a thousand streams whose calls were cancelled while they were answered.
    """

    END_S = 2.0
    """How long a closed stream may take to end before its call is cancelled."""

    def __init__(self, call: Any, timeout_s: float, failures: Failures) -> None:
        self._call = call
        self._timeout_s = timeout_s
        self._failures = failures
        self._closed = False
        self._reading = threading.Lock()

    def __iter__(self) -> "GrpcResponseStream":
        return self

    def __next__(self) -> Tensors:
        with self._reading:
            while True:
                try:
                    response = next(self._call)
                except grpc.RpcError as error:
                    if self._closed:
                        raise StopIteration from None
                    raise _error_of(error, self._timeout_s, self._failures) from error
                if not self._closed:  # else only its end is waited for
                    break
        if response.error_message:
            raise self._failures.without_status(response.error_message)
        return _decode(response.infer_response, self._failures)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if not self._call.is_active():
            return
        last_resort = threading.Timer(self.END_S, self._call.cancel)
        last_resort.daemon = True
        last_resort.start()
        try:
            next(self, None)  # a thread that reads just now does the same, and this one waits for it
        except Exception:  # what arrives now is for nobody
            self._call.cancel()
        finally:
            last_resort.cancel()


def _encode(request: InferRequest) -> Any:
    message = service_pb2.ModelInferRequest(model_name=request.model, id=request.request_id)
    for name, value in request.inputs.items():
        triton_type = _INPUT_TYPES[name]
        message.inputs.add(name=name, datatype=triton_type, shape=[1, 1])
        message.raw_input_contents.append(_pack(triton_type, value))
    return message


def _pack(triton_type: str, value: Scalar) -> bytes:
    if isinstance(value, str):
        data = value.encode("utf-8")
        return struct.pack("<I", len(data)) + data
    return struct.pack("<" + _STRUCT_CODES[triton_type], value)


def _decode(response: Any, failures: Failures) -> Tensors:
    if len(response.outputs) != len(response.raw_output_contents):
        raise failures.server("the answer's tensors and their contents do not match")
    pairs = zip(response.outputs, response.raw_output_contents, strict=True)
    try:
        return {output.name: _unpack(output.datatype, raw) for output, raw in pairs}
    except (struct.error, KeyError) as error:
        raise failures.server(f"a tensor of the answer cannot be read: {error}") from error


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


def _error_of(error: grpc.RpcError, timeout_s: float, failures: Failures) -> NeuroLatentError:
    code, text = error.code(), error.details() or ""
    if code is grpc.StatusCode.NOT_FOUND or names_unknown_model(text):
        return failures.model_not_found(text)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return failures.invalid(text)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return failures.deadline(timeout_s)
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
        return failures.unavailable(text)
    return failures.server(f"{text or 'no reason given'} ({code.name})")
