"""From output tensors to the fields of the results."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from neuro_latent_core.repository import DEFAULT

from ._failures import Failures
from ._request import InferRequest
from .results import GeneratedSequence, ServedAdapter

if TYPE_CHECKING:
    from .transports.base import Tensors

MODEL_VERSION: Final = "adapter_version"
"""The output that names the adapter's version."""
SEQUENCE: Final[dict[str, Callable[[Any], Any]]] = {
    "enhanced_prompt": str,
    "added": str,
    "score": float,
    "generated_tokens": int,
    "finish_reason": str,
    "reason": str,
}
"""The outputs that make a sequence, in the order of its fields."""

T = TypeVar("T", str, int, float, bool)


def first(tensors: "Tensors", name: str, kind: Callable[[Any], T], failures: Failures) -> T:
    """The first value of one output. Raises ServerError when the answer lacks it."""
    return _values(tensors, name, kind, failures)[0]


def sequences_of(tensors: "Tensors", failures: Failures) -> tuple[GeneratedSequence, ...]:
    """The sequences of an answer, outputs [1, n]. Raises ServerError when their numbers differ."""
    columns = [_values(tensors, name, kind, failures) for name, kind in SEQUENCE.items()]
    if len({len(column) for column in columns}) != 1:
        raise failures.server(f"the answer has outputs of different lengths: {[len(column) for column in columns]}")
    return tuple(GeneratedSequence(*row) for row in zip(*columns, strict=True))


def answer_id(tensors: "Tensors", request: InferRequest) -> str:
    """What the answer calls itself: a gateway asks Triton by an id of its own; else that of the request."""
    return str(tensors.get("request_id", [request.request_id])[0])


def adapters_of(tensors: "Tensors", failures: Failures) -> tuple[ServedAdapter, ...]:
    """The adapters that an answer for :data:`~neuro_latent_core.protocol.EVERY_ADAPTER` names."""
    told = first(tensors, MODEL_VERSION, str, failures)
    versions: Any = None
    with suppress(ValueError):
        versions = json.loads(told)
    if not isinstance(versions, dict):
        versions = {DEFAULT: told}
    return tuple(ServedAdapter(name, str(version)) for name, version in versions.items())


def _values(tensors: "Tensors", name: str, kind: Callable[[Any], T], failures: Failures) -> list[T]:
    if not tensors.get(name):
        raise failures.server(f"the answer lacks '{name}': the server's models and this client do not fit together")
    try:
        return [kind(value) for value in tensors[name]]
    except (TypeError, ValueError) as error:
        raise failures.server(f"the answer's '{name}' cannot be read: {error}") from error
