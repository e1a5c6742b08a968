"""The seam between the client and the wire: what a transport does, and which one a URL means."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from ._endpoint import Endpoint
from ._request import InferRequest, Scalar

Tensors = Mapping[str, list[Scalar]]
"""Outputs by name, each flattened: [1, n] is a list of n values, text as str."""


class ResponseStream(Iterator[Tensors], Protocol):
    """Responses of a streaming model, in order, each [1, 1]."""

    def close(self) -> None:
        """Cancel what is left, on the server too. Safe to call twice and from another thread; ends the iteration."""


class Transport(Protocol):
    """A connection to one server, safe to share between threads. All methods raise NeuroLatentError only."""

    name: str

    def infer(self, request: InferRequest) -> Tensors: ...

    def stream(self, request: InferRequest) -> ResponseStream: ...

    def cancel(self, request_id: str) -> None:
        """Tell the server that nobody waits for a request any more; does its best for a moment, and never raises."""

    def server_live(self, timeout_s: float) -> bool: ...

    def server_ready(self, timeout_s: float) -> bool: ...

    def model_ready(self, model: str, timeout_s: float) -> bool: ...

    def model_versions(self, model: str, timeout_s: float) -> list[str]: ...

    def close(self) -> None: ...


def connect(endpoint: Endpoint, headers: Mapping[str, str]) -> Transport:
    """The transport for the URL's scheme. Imported here, because each pulls in a network stack."""
    if endpoint.scheme.startswith("grpc"):
        from ._grpc import GrpcTransport

        return GrpcTransport(endpoint, headers)
    from ._http import HttpTransport

    return HttpTransport(endpoint, headers)
