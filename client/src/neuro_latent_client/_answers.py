"""From output tensors to the fields of the results."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from ._failures import Failures
from .results import GeneratedSequence
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


def first(tensors: Tensors, name: str, kind: Callable[[Any], T], failures: Failures) -> T:
    """The first value of one output. Raises ServerError when the answer lacks it."""
    return _values(tensors, name, kind, failures)[0]


def sequences_of(tensors: Tensors, failures: Failures) -> tuple[GeneratedSequence, ...]:
    """The sequences of an answer, outputs [1, n]. Raises ServerError when their numbers differ."""
    columns = [_values(tensors, name, kind, failures) for name, kind in SEQUENCE.items()]
    if len({len(column) for column in columns}) != 1:
        raise failures.server(f"the answer has outputs of different lengths: {[len(column) for column in columns]}")
    return tuple(GeneratedSequence(*row) for row in zip(*columns, strict=True))


def _values(tensors: Tensors, name: str, kind: Callable[[Any], T], failures: Failures) -> list[T]:
    if not tensors.get(name):
        raise failures.server(f"the answer lacks '{name}': the server's models and this client do not fit together")
    try:
        return [kind(value) for value in tensors[name]]
    except (TypeError, ValueError) as error:
        raise failures.server(f"the answer's '{name}' cannot be read: {error}") from error
