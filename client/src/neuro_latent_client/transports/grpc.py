"""gRPC: the messages of Triton's service, on a channel of grpcio or of grpc.aio.

Triton 24.10 crashes (segmentation fault in its stream handler) after a hundred to a thousand streams whose calls were
cancelled while they were answered. So a stream that is closed early is read to its end, which comes soon when the
request was cancelled at the decoder; cancelling the call itself is the last resort. And because grpc.aio cancels a call
when the task that waits for it is cancelled, calls are awaited there in tasks of their own.
"""

import asyncio
import contextlib
import struct
import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Final

import grpc
import grpc.aio

from neuro_latent_core import protocol

from .. import triton_pb2
from .._coroutines import BackgroundTasks, run
from .._endpoint import Settings
from .._failures import Failures, names_unknown_model
from .._request import WIRE_TYPES, InferRequest, Scalar
from ..errors import NeuroLatentError
from ..results import ServedModel
from ..tls import TlsConfig
from .base import CANCEL_TIMEOUT_S, CONNECT_TIMEOUT_S, A, Question, ResponseStream, Tensors

END_S: Final = 2.0
"""How long a stream that was closed may take to end before its call is cancelled."""

_SERVICE: Final = "/inference.GRPCInferenceService/"
_STREAM_METHOD: Final = "ModelStreamInfer"
_RESTRICTED: Final = "protocol is restricted"  # Triton says so with UNAVAILABLE where it wants a certain header
_STRUCT_CODES: Final = {"INT32": "i", "INT64": "q", "FP32": "f", "BOOL": "?"}

_QUESTIONS: Final[dict[str, tuple[str, str | None, Callable[[Any], Any]]]] = {
    "live": ("ServerLive", None, lambda answer: answer.live),
    "ready": ("ServerReady", None, lambda answer: answer.ready),
    "model_ready": ("ModelReady", "name", lambda answer: answer.ready),
    "model_versions": ("ModelMetadata", "name", lambda answer: list(answer.versions)),
    "index": (
        "RepositoryIndex",
        None,
        lambda answer: tuple(
            ServedModel(model.name, model.version, model.state == "READY", model.reason) for model in answer.models
        ),
    ),
    "load": ("RepositoryModelLoad", "model_name", lambda answer: None),
}
"""For each question about the server: the method, the field of its message for a model, and how its answer is read."""


class GrpcTransport:
    """A channel that threads share."""

    name = "grpc"
    _library: Any = grpc

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._address = settings.endpoint.url
        _ = self._methods  # made before threads share them

    @cached_property
    def _channel(self) -> Any:
        return _make_channel(self._library, self._settings)

    @cached_property
    def _methods(self) -> dict[str, Any]:
        return _make_methods(self._channel)

    async def infer(self, request: InferRequest) -> Tensors:
        failures = Failures.of(self._address, request)
        response = await self._call("ModelInfer", _encode(request), request.remaining_s, failures, request.headers)
        return _decode(response, failures)

    async def stream(self, request: InferRequest) -> ResponseStream:
        # Without the header triton_grpc_error, which gives the errors of a stream a status code: Triton 24.10 can crash
        # (segmentation fault) when a stream that carries it fails or is cancelled.
        call = self._methods[_STREAM_METHOD](
            iter([_encode(request)]), timeout=request.remaining_s, metadata=tuple(request.headers.items())
        )
        return self._responses(call, Failures.of(self._address, request))

    async def cancel(self, request_id: str) -> None:
        _within(2 * CANCEL_TIMEOUT_S, lambda: run(self._cancel(request_id)))

    async def ask(self, question: Question[A], timeout_s: float) -> A:
        method, field, read = _QUESTIONS[question.about]
        message = getattr(triton_pb2, f"{method}Request")(**({field: question.model} if field else {}))
        failures = Failures(self._address, timeout_s, question.model)
        answer: A = read(await self._call(method, message, timeout_s, failures, self._settings.headers))
        return answer

    async def close(self) -> None:
        _within(END_S, self._channel.close)

    async def _cancel(self, request_id: str) -> None:
        inputs = {protocol.CANCEL_INPUT: request_id}
        request = InferRequest(protocol.CANCEL_MODEL, "", inputs, CANCEL_TIMEOUT_S, self._settings.headers)
        # ValueError, UsageError: the channel is closed already.
        with contextlib.suppress(NeuroLatentError, ValueError, grpc.aio.UsageError):
            responses = await self.stream(request)
            while await anext(responses, None) is not None:
                pass

    async def _call(
        self, method: str, message: object, timeout_s: float, failures: Failures, headers: Mapping[str, str]
    ) -> Any:
        try:
            return await self._answer(method, message, timeout=timeout_s, metadata=tuple(headers.items()))
        except grpc.RpcError as error:
            raise error_of(error, failures) from error

    async def _answer(self, method: str, *message: object, **settings: object) -> Any:
        return self._methods[method](*message, **settings)

    def _responses(self, call: Any, failures: Failures) -> ResponseStream:
        return _ResponseStream(call, failures)


class AsyncGrpcTransport(GrpcTransport):
    """A channel that the tasks of one event loop share: the one that it is first used in."""

    _library = grpc.aio

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._address = settings.endpoint.url
        self._background_tasks = BackgroundTasks()

    async def cancel(self, request_id: str) -> None:
        await self._cancel(request_id)

    async def close(self) -> None:
        await self._background_tasks.finish(END_S)
        if "_channel" in vars(self):  # one was needed
            await self._channel.close()

    async def _answer(self, method: str, *message: object, **settings: object) -> Any:
        async def answer() -> Any:
            return await self._methods[method](*message, **settings)

        return await self._background_tasks.run(answer())

    def _responses(self, call: Any, failures: Failures) -> ResponseStream:
        return _AsyncResponseStream(call, failures, self._background_tasks)


class _ResponseStream:
    """The responses of one ModelStreamInfer call with one request."""

    def __init__(self, call: Any, failures: Failures) -> None:
        self._call = call
        self._failures = failures
        self._closed = False
        self._reading = threading.Lock()

    async def __anext__(self) -> Tensors:
        response = self._next()
        if response is None:
            raise StopAsyncIteration
        return _decode_streamed(response, self._failures)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        last_resort = threading.Timer(END_S, self._call.cancel)
        last_resort.daemon = True
        last_resort.start()
        _within(2 * END_S, self._read_to_the_end)
        last_resort.cancel()

    def _next(self) -> Any:
        """The next response; None at the end, for which alone it waits once the stream is closed."""
        with self._reading:
            try:
                for response in self._call:
                    if not self._closed:
                        return response
            except grpc.RpcError as error:
                if not self._closed:
                    self._closed = True
                    raise error_of(error, self._failures) from error
            self._closed = True  # there is nothing left to close
            return None

    def _read_to_the_end(self) -> None:
        if not self._call.is_active():
            return
        try:
            self._next()  # a thread that reads just now does the same, and this one waits for it
        except Exception:  # what arrives now is for nobody
            self._call.cancel()


class _AsyncResponseStream:
    """The same for an event loop."""

    def __init__(self, call: Any, failures: Failures, background_tasks: BackgroundTasks) -> None:
        self._call = call
        self._failures = failures
        self._background_tasks = background_tasks
        self._closed = False
        self._read: asyncio.Task[Any] | None = None

    async def __anext__(self) -> Tensors:
        try:
            response = grpc.aio.EOF if self._closed else await self._next()
        except grpc.RpcError as error:
            if self._closed:
                raise StopAsyncIteration from None
            raise error_of(error, self._failures) from error
        if self._closed or response is grpc.aio.EOF:
            raise StopAsyncIteration
        return _decode_streamed(response, self._failures)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._background_tasks.run(self._read_to_the_end())

    async def _next(self) -> Any:
        """The next response. A reading that its caller no longer waits for is kept for the next one."""
        if self._read is None:
            self._read = asyncio.ensure_future(self._call.read())
        reading = self._read
        response = await asyncio.shield(reading)
        if self._read is reading:
            self._read = None
        return response

    async def _read_to_the_end(self) -> None:
        try:
            async with asyncio.timeout(END_S):
                while not self._call.done() and await self._next() is not grpc.aio.EOF:
                    pass
        except (TimeoutError, grpc.RpcError, asyncio.CancelledError):
            self._call.cancel()


def _within(seconds: float, work: Callable[[], None]) -> None:
    """Do some work, and wait for it no longer than ``seconds``.

    An exception that a signal has raised inside gRPC can leave a lock of it taken; then the work never ends.
    """
    worker = threading.Thread(target=work, daemon=True)
    try:
        worker.start()
    except RuntimeError:  # Python 3.12 makes no threads while it ends
        work()
    else:
        worker.join(seconds)


def _make_channel(grpc_like: Any, settings: Settings) -> Any:
    """A channel of ``grpc`` or ``grpc.aio``; it connects on first use and reconnects by itself."""
    endpoint = settings.endpoint
    options = [
        ("grpc.max_send_message_length", -1),  # no limit here: the server has its own
        ("grpc.max_receive_message_length", -1),
        ("grpc.min_reconnect_backoff_ms", int(CONNECT_TIMEOUT_S * 1000)),  # of an attempt, in spite of its name
        ("grpc.initial_reconnect_backoff_ms", 100),  # else no retry meets a server that has just come back
        ("grpc.max_reconnect_backoff_ms", 1000),  # a server that comes back is found within a second
        ("grpc.enable_http_proxy", 0 if endpoint.is_loopback else 1),
    ]
    if not endpoint.is_encrypted:
        return grpc_like.insecure_channel(endpoint.netloc, options)
    credentials = grpc.ssl_channel_credentials(*(settings.tls or TlsConfig()).read())
    return grpc_like.secure_channel(endpoint.netloc, credentials, options)


def _make_methods(channel: Any) -> dict[str, Any]:
    """The methods of Triton's service on a channel of either library, by name."""
    methods = {_STREAM_METHOD: channel.stream_stream(*_route(_STREAM_METHOD, "ModelInfer"))}
    for name in ("ModelInfer", *(method for method, _, _ in _QUESTIONS.values())):
        methods[name] = channel.unary_unary(*_route(name, name))
    return methods


def _route(name: str, request: str) -> tuple[str, Callable[[Any], bytes], Callable[[bytes], Any]]:
    """The path of a method, and how its messages become bytes and back."""
    request_type, response_type = getattr(triton_pb2, f"{request}Request"), getattr(triton_pb2, f"{name}Response")
    return _SERVICE + name, request_type.SerializeToString, response_type.FromString


def _encode(request: InferRequest) -> Any:
    message = triton_pb2.ModelInferRequest(model_name=request.model, id=request.request_id)
    for name, value in request.inputs.items():
        triton_type = WIRE_TYPES[name]
        message.inputs.add(name=name, datatype=triton_type, shape=[1, 1])
        message.raw_input_contents.append(_pack(triton_type, value))
    return message


def _decode(response: Any, failures: Failures) -> Tensors:
    if len(response.outputs) != len(response.raw_output_contents):
        raise failures.server("the answer's tensors and their contents do not match")
    pairs = zip(response.outputs, response.raw_output_contents, strict=True)
    try:
        return {output.name: _unpack(output.datatype, raw) for output, raw in pairs}
    except (struct.error, KeyError) as error:
        raise failures.server(f"a tensor of the answer cannot be read: {error}") from error


def _decode_streamed(response: Any, failures: Failures) -> Tensors:
    """One response of a stream, where an error is a text."""
    if response.error_message:
        raise failures.without_status(response.error_message)
    return _decode(response.infer_response, failures)


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
