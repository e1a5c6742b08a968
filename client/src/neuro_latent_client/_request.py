"""A request as both transports send it: named scalars, checked only for what the wire can carry.

Limits (how many tokens, which temperature) belong to the server, which says them in its errors.
"""

import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from . import protocol
from .errors import InvalidRequestError
from .options import GenerationOptions

Scalar = str | int | float | bool

_INTEGER_BITS = {"INT32": 32, "INT64": 64}
_FP32_MAX = 3.4028234663852886e38
_LONGEST_TIMEOUT_S = 1e6  # clocks of the network libraries overflow far above it

CANCEL_TIMEOUT_S: Final = 1.0
"""How long a cancellation may take: it is a courtesy to the server, and the caller wants to go on."""


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One row for one model: every input has shape [1, 1].

    Attributes:
        timeout_s: the time for the whole call, in seconds.
    """

    model: str
    request_id: str
    inputs: Mapping[str, Scalar]
    timeout_s: float


def make_inputs(raw_prompt: str, options: GenerationOptions) -> dict[str, Scalar]:
    """The inputs to send: the prompt and the options that are not None.

    Raises:
        InvalidRequestError: a value is of the wrong type, or its tensor type cannot hold it.
        TypeError: an option of that name does not exist.

    >>> make_inputs("Create a function", {"seed": 7, "top_k": None})
    {'raw_prompt': 'Create a function', 'seed': 7}
    """
    inputs: dict[str, Scalar] = {protocol.RAW_PROMPT: _text(raw_prompt)}
    for name, value in options.items():
        if name not in protocol.OPTION_TYPES:
            raise TypeError(f"unexpected option {name!r}; known are {', '.join(protocol.OPTION_TYPES)}")
        if value is not None:
            triton_type = protocol.OPTION_TYPES[name]
            inputs[name] = _real(name, value) if triton_type == "FP32" else _integer(name, value, triton_type)
    return inputs


def check_timeout(seconds: float) -> float:
    """Return ``seconds`` when a wait can be that long; raise InvalidRequestError otherwise."""
    seconds = _real("timeout", seconds)
    if not 0 < seconds <= _LONGEST_TIMEOUT_S:
        raise InvalidRequestError(f"timeout: {seconds:g} is not above 0 and at most {_LONGEST_TIMEOUT_S:g} seconds")
    return seconds


def _text(raw_prompt: object) -> str:
    if not isinstance(raw_prompt, str):
        raise InvalidRequestError(f"raw_prompt: must be str, not {type(raw_prompt).__name__}")
    try:
        raw_prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        bad = raw_prompt[error.start]
        raise InvalidRequestError(
            f"raw_prompt: character {error.start} ({bad!r}) is half of a surrogate pair and is no text"
        ) from None
    return raw_prompt


def _integer(name: str, value: object, triton_type: str) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise InvalidRequestError(f"{name}: must be int, not {type(value).__name__}")
    limit = 2 ** (_INTEGER_BITS[triton_type] - 1)
    if not -limit <= value < limit:
        raise InvalidRequestError(f"{name}: {value} does not fit in {triton_type}")
    return int(value)


def _real(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InvalidRequestError(f"{name}: must be a number, not {type(value).__name__}")
    number = float(value)
    if not abs(number) <= _FP32_MAX:  # false for NaN too
        raise InvalidRequestError(f"{name}: {value} is not a finite FP32 number")
    return number
