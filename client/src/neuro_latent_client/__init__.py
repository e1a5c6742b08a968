"""Client of the Neuro-Latent Optimizer: raw prompts in, better prompts out, over gRPC, HTTP or a gateway's REST API.

>>> with Client("grpc://127.0.0.1:8001") as client:
...     print(client.optimize("Create a function").text)
Create a function
<BLANKLINE>
In Python.
"""

from neuro_latent_core import __version__ as __version__

from .async_client import AsyncClient, AsyncOptimizationStream
from .client import Client, OptimizationStream
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
from .results import Feedback, GeneratedSequence, Health, Optimization, Piece, Progress, ServedAdapter, ServedModel
from .tls import TlsConfig

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
    "ServedAdapter",
    "ServedModel",
    "ServerError",
    "ServerUnavailableError",
    "TlsConfig",
]
