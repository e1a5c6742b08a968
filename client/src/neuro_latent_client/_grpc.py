"""gRPC, on a grpcio channel."""

import contextlib
import threading
from collections.abc import Callable, Mapping
from typing import Any

import grpc

from neuro_latent_core import protocol

from ._failures import Failures
from ._grpc_wire import END_S, QUESTIONS, decode, decode_streamed, encode, error_of, make_channel, make_methods
from ._request import CANCEL_TIMEOUT_S, InferRequest
from ._settings import Settings
from ._transport import A, Question, Tensors
from .errors import NeuroLatentError


class GrpcTransport:
    """A channel that threads share."""

    name = "grpc"

    def __init__(self, settings: Settings) -> None:
        self._channel = make_channel(grpc, settings)
        self._methods = make_methods(self._channel)
        self._headers = settings.headers
        self._address = settings.endpoint.url

    def infer(self, request: InferRequest) -> Tensors:
        failures = Failures.of(self._address, request)
        response = self._call("ModelInfer", encode(request), request.remaining_s, failures, request.headers)
        return decode(response, failures)

    def stream(self, request: InferRequest) -> "GrpcResponseStream":
        # Without the header triton_grpc_error, which gives the errors of a stream a status code: Triton 24.10 can crash
        # (segmentation fault) when a stream that carries it fails or is cancelled.
        call = self._methods["ModelStreamInfer"](
            iter([encode(request)]), timeout=request.remaining_s, metadata=tuple(request.headers.items())
        )
        return GrpcResponseStream(call, Failures.of(self._address, request))

    def cancel(self, request_id: str) -> None:
        inputs = {protocol.CANCEL_INPUT: request_id}
        request = InferRequest(protocol.CANCEL_MODEL, "", inputs, CANCEL_TIMEOUT_S, self._headers)

        def send() -> None:
            # ValueError: the channel is closed already.
            with contextlib.suppress(NeuroLatentError, ValueError):
                for _ in self.stream(request):
                    pass

        _within(2 * CANCEL_TIMEOUT_S, send)

    def ask(self, question: Question[A], timeout_s: float) -> A:
        method, message_for, read = QUESTIONS[question.about]
        failures = Failures(self._address, timeout_s, question.model)
        answer: A = read(self._call(method, message_for(question.model), timeout_s, failures, self._headers))
        return answer

    def close(self) -> None:
        _within(END_S, self._channel.close)

    def _call(
        self, method: str, message: object, timeout_s: float, failures: Failures, headers: Mapping[str, str]
    ) -> Any:
        try:
            return self._methods[method](message, timeout=timeout_s, metadata=tuple(headers.items()))
        except grpc.RpcError as error:
            raise error_of(error, failures) from error


class GrpcResponseStream:
    """The responses of one ModelStreamInfer call with one request.

    One that is closed early is read to its end first, which comes soon when the request was cancelled at the decoder.
    Cancelling the call itself is the last resort: Triton 24.10 crashes (segmentation fault in its stream handler) after
    a hundred to a thousand streams whose calls were cancelled while they were answered.
    """

    def __init__(self, call: Any, failures: Failures) -> None:
        self._call = call
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
                except StopIteration:
                    self._closed = True  # there is nothing left to close
                    raise
                except grpc.RpcError as error:
                    if self._closed:
                        raise StopIteration from None
                    self._closed = True
                    raise error_of(error, self._failures) from error
                if not self._closed:  # else only its end is waited for
                    break
        return decode_streamed(response, self._failures)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        last_resort = threading.Timer(END_S, self._call.cancel)
        last_resort.daemon = True
        last_resort.start()
        _within(2 * END_S, self._read_to_the_end)
        last_resort.cancel()

    def _read_to_the_end(self) -> None:
        if not self._call.is_active():
            return
        try:
            next(self, None)  # a thread that reads just now does the same, and this one waits for it
        except Exception:  # what arrives now is for nobody
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
