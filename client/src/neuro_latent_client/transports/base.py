"""The seam between the clients and the wire: what a transport does."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Generic, Literal, Protocol, TypeVar

from neuro_latent_core import protocol

from .._request import InferRequest, Scalar
from ..results import ServedModel

Tensors = Mapping[str, list[Scalar]]
"""Outputs by name, each flattened: [1, n] is a list of n values, text as str."""

A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Question(Generic[A]):
    """A small question about the server or one of its models, and the type of its answer."""

    about: Literal["live", "ready", "model_ready", "model_versions", "index", "load"]
    model: str = ""


LIVE: Question[bool] = Question("live")
READY: Question[bool] = Question("ready")
UNARY_READY: Question[bool] = Question("model_ready", protocol.UNARY_MODEL)
STREAM_READY: Question[bool] = Question("model_ready", protocol.STREAM_MODEL)
UNARY_VERSIONS: Question[list[str]] = Question("model_versions", protocol.UNARY_MODEL)
INDEX: Question[tuple[ServedModel, ...]] = Question("index")
LOAD_ADAPTERS: Question[None] = Question("load", protocol.PROJECTOR_MODEL)

CONNECT_TIMEOUT_S: Final = 5.0
"""How long a connection may take, so that a server that is off the network is told of in seconds."""
LOAD_TIMEOUT_S: Final = 120.0
"""A model of real size takes seconds to load, more on a busy machine."""
CANCEL_TIMEOUT_S: Final = 1.0
"""How long a cancellation may take: it is a courtesy to the server, and the caller wants to go on."""


class ResponseStream(Protocol):
    """Responses of a streaming model, in order, each [1, 1]."""

    async def __anext__(self) -> Tensors: ...

    async def close(self) -> None:
        """Cancel what is left, on the server too. Safe to call twice, and from another thread or task of the client;
        ends the iteration."""


class Transport(Protocol):
    """A connection to one server. All methods raise NeuroLatentError only.

    A blocking one is safe to share between threads; its coroutines never suspend, so that
    :func:`~neuro_latent_client._coroutines.run` runs them. The others are for the tasks of one event loop, and connect
    on first use, in that loop.
    """

    @property
    def name(self) -> str:
        """What answers bear as ``transport``."""

    async def infer(self, request: InferRequest) -> Tensors: ...

    async def stream(self, request: InferRequest) -> ResponseStream: ...

    async def cancel(self, request_id: str) -> None:
        """Tell the server that nobody waits for a request any more; does its best for a moment, and never raises."""

    async def ask(self, question: Question[A], timeout_s: float) -> A: ...

    async def close(self) -> None: ...
