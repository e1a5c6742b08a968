"""From output tensors to the fields of the results."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from ._failures import Failures
from ._transport import Tensors
from .results import GeneratedSequence

MODEL_VERSION: Final = "adapter_version"
"""The output that names the adapter's version."""

T = TypeVar("T", str, int, float, bool)


def values(tensors: Tensors, name: str, kind: Callable[[Any], T], failures: Failures) -> list[T]:
    """All values of one output. Raises ServerError when the answer lacks it."""
    if not tensors.get(name):
        raise failures.server(f"the answer lacks '{name}': the server's models and this client do not fit together")
    try:
        return [kind(value) for value in tensors[name]]
    except (TypeError, ValueError) as error:
        raise failures.server(f"the answer's '{name}' cannot be read: {error}") from error


def first(tensors: Tensors, name: str, kind: Callable[[Any], T], failures: Failures) -> T:
    """The first value of one output. Raises ServerError when the answer lacks it."""
    return values(tensors, name, kind, failures)[0]


def sequences_of(tensors: Tensors, failures: Failures) -> tuple[GeneratedSequence, ...]:
    """The sequences of a unary answer, outputs [1, n]. Raises ServerError when their numbers differ."""
    columns = (
        values(tensors, "enhanced_prompt", str, failures),
        values(tensors, "added", str, failures),
        values(tensors, "score", float, failures),
        values(tensors, "generated_tokens", int, failures),
        values(tensors, "finish_reason", str, failures),
        values(tensors, "reason", str, failures),
    )
    if len({len(column) for column in columns}) != 1:
        raise failures.server(f"the answer has outputs of different lengths: {[len(column) for column in columns]}")
    return tuple(GeneratedSequence(*row) for row in zip(*columns, strict=True))
