"""Client of the Neuro-Latent Optimizer: raw prompts in, better prompts out, over gRPC or HTTP.

>>> from neuro_latent_client import Client
>>> with Client("grpc://127.0.0.1:8001") as client:  # doctest: +SKIP
...     print(client.optimize("Create a function").text)
"""

from ._stream import OptimizationStream
from .client import Client
from .errors import (
    DeadlineError,
    InvalidRequestError,
    ModelNotFoundError,
    NeuroLatentError,
    ServerError,
    ServerUnavailableError,
)
from .options import GenerationOptions
from .results import GeneratedSequence, Health, Optimization, Piece

__version__ = "0.1.0"

__all__ = [
    "Client",
    "DeadlineError",
    "GeneratedSequence",
    "GenerationOptions",
    "Health",
    "InvalidRequestError",
    "ModelNotFoundError",
    "NeuroLatentError",
    "Optimization",
    "OptimizationStream",
    "Piece",
    "ServerError",
    "ServerUnavailableError",
]
