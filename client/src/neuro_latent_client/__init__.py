"""Client of the Neuro-Latent Optimizer: raw prompts in, better prompts out, over gRPC or HTTP.

>>> with Client("grpc://127.0.0.1:8001") as client:
...     print(client.optimize("Create a function").text)
Create a function
<BLANKLINE>
In Python.
"""

from typing import TYPE_CHECKING

from ._stream import OptimizationStream
from .client import Client
from .errors import (
    AccessDeniedError,
    DeadlineError,
    InvalidRequestError,
    ModelNotFoundError,
    NeuroLatentError,
    ServerError,
    ServerUnavailableError,
)
from .options import FeedbackDetails, GenerationOptions
from .results import Feedback, GeneratedSequence, Health, Optimization, Piece, Progress, ServedModel
from .tls import TlsConfig

if TYPE_CHECKING:
    from ._async_stream import AsyncOptimizationStream
    from .async_client import AsyncClient

__version__ = "0.1.0"

__all__ = [
    "AccessDeniedError",
    "AsyncClient",
    "AsyncOptimizationStream",
    "Client",
    "DeadlineError",
    "Feedback",
    "FeedbackDetails",
    "GeneratedSequence",
    "GenerationOptions",
    "Health",
    "InvalidRequestError",
    "ModelNotFoundError",
    "NeuroLatentError",
    "Optimization",
    "OptimizationStream",
    "Piece",
    "Progress",
    "ServedModel",
    "ServerError",
    "ServerUnavailableError",
    "TlsConfig",
]


def __getattr__(name: str) -> object:
    """The asynchronous client, when it is first asked for: asyncio alone takes a third of the time of this import."""
    if name in ("AsyncClient", "AsyncOptimizationStream"):
        from . import async_client

        return getattr(async_client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
