"""A request as every transport sends it: named scalars, checked for what the wire can carry.

Limits of optimizing (how many tokens, which temperature) belong to the server, which says them in its errors. Those of
feedback are checked here too.
"""

import math
import numbers
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from neuro_latent_core import protocol
from neuro_latent_core.limits import MAX_DEADLINE_MS

from .errors import InvalidRequestError
from .options import FeedbackDetails, GenerationOptions
from .results import Optimization

Scalar = str | int | float | bool

WIRE_TYPES: Final = {
    **protocol.INPUT_TYPES,
    **protocol.FEEDBACK_INPUT_TYPES,
    protocol.CANCEL_INPUT: "BYTES",
}
"""Every input's type, whatever the model."""

_INTEGER_BITS = {"INT32": 32, "INT64": 64}
_FP32_MAX = 3.4028234663852886e38
_LONGEST_TIMEOUT_S = 1e6  # clocks of the network libraries overflow far above it
_SHORTEST_WAIT_S = 0.001
_TRACEPARENT = re.compile(r"[0-9a-f]{2}(-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})")


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One row for one model: every input has shape [1, 1].

    Attributes:
        timeout_s: the time for the whole call, all its attempts included, in seconds.
        headers: all that are sent, the client's own and those of the call.
        start_s: when the call began, a reading of ``time.monotonic``.
    """

    model: str
    request_id: str
    inputs: Mapping[str, Scalar]
    timeout_s: float
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # secrets may be in it
    start_s: float = field(default_factory=time.monotonic)

    @property
    def remaining_s(self) -> float:
        """What is left of the time, in seconds; never 0, which to some libraries means no limit."""
        return max(_SHORTEST_WAIT_S, self.start_s + self.timeout_s - time.monotonic())

    @property
    def elapsed_ms(self) -> float:
        return round((time.monotonic() - self.start_s) * 1000, 3)

    def sent_now(self) -> "InferRequest":
        """The request of an attempt that begins now: the server gets what is left of ``deadline_ms`` or of the call.

        >>> InferRequest(protocol.UNARY_MODEL, "id", {"deadline_ms": 50}, timeout_s=30.0).sent_now().inputs
        {'deadline_ms': 50}
        """
        if self.model not in (protocol.UNARY_MODEL, protocol.STREAM_MODEL):
            return self
        # Rounded up: the server must not stop, and answer with half a text, before the client has given up.
        left_ms = math.ceil(self.remaining_s * 1000)
        asked_ms = int(self.inputs.get("deadline_ms", 0))
        if asked_ms > 0:
            asked_ms = max(1, math.ceil(asked_ms - self.elapsed_ms))
        if not asked_ms and left_ms > MAX_DEADLINE_MS:
            return self
        return replace(self, inputs={**self.inputs, "deadline_ms": min(asked_ms or left_ms, left_ms)})


def make_inputs(raw_prompt: str, options: GenerationOptions) -> dict[str, Scalar]:
    """The inputs to send: the prompt and the options that are not None.

    Raises:
        InvalidRequestError: a value is of the wrong type, or its tensor type cannot hold it.
        TypeError: an option of that name does not exist.

    >>> make_inputs("Create a function", {"seed": 7, "top_k": None})
    {'raw_prompt': 'Create a function', 'seed': 7}
    """
    inputs: dict[str, Scalar] = {protocol.RAW_PROMPT: _text(protocol.RAW_PROMPT, raw_prompt)}
    for name, value in options.items():
        if name not in GenerationOptions.__annotations__:
            raise TypeError(f"unexpected option {name!r}; known are {', '.join(GenerationOptions.__annotations__)}")
        if value is None:
            continue
        match protocol.INPUT_TYPES[name]:
            case "BYTES":
                inputs[name] = _text(name, value)
            case "FP32":
                inputs[name] = _real(name, value)
            case triton_type:
                inputs[name] = _integer(name, value, triton_type)
    return inputs


def make_probe(timeout_s: float, adapter: str | None = None) -> dict[str, Scalar]:
    """The inputs of a question that costs one token, and half of the time to wait in queues: what is late is answered
    without being decoded, so that a busy server answers it too. It samples: no cache answers for the decoder."""
    deadline_ms = min(MAX_DEADLINE_MS, math.ceil(timeout_s * 500))
    return make_inputs(
        "Create a function", {"max_length": 1, "temperature": 1.0, "deadline_ms": deadline_ms, "adapter": adapter}
    )


def make_feedback_inputs(answer: Optimization | str, rating: int, details: FeedbackDetails) -> dict[str, Scalar]:
    """The inputs to send: what ``answer`` (or its request id) brings, the rating, and the details that are not None.

    Raises:
        InvalidRequestError: a text is missing or too long, or the rating is none.
        TypeError: a detail of that name does not exist.

    >>> make_feedback_inputs("id", 1, {"raw_prompt": "a", "enhanced_prompt": "b", "comment": None})
    {'request_id': 'id', 'raw_prompt': 'a', 'enhanced_prompt': 'b', 'rating': 1}
    """
    for name in details.keys() - FeedbackDetails.__annotations__.keys():
        raise TypeError(f"unexpected detail {name!r}; known are {', '.join(FeedbackDetails.__annotations__)}")
    texts: dict[str, object] = {"request_id": answer}
    if isinstance(answer, Optimization):
        texts = {
            "request_id": answer.request_id,
            "raw_prompt": answer.raw_prompt,
            "enhanced_prompt": answer.text,
            "model_version": answer.model_version,
        }
    texts |= {name: value for name, value in details.items() if value is not None}
    for name in ("request_id", "raw_prompt", "enhanced_prompt"):
        if name not in texts or (not texts[name] and name != "enhanced_prompt"):  # an answer may be empty
            raise InvalidRequestError(
                f"{name}: missing; give the Optimization itself, or its request id, raw_prompt and enhanced_prompt"
            )
    if _integer("rating", rating, "INT32") not in (1, -1):
        raise InvalidRequestError(f"rating: {rating} is neither 1 (good) nor -1 (bad)")
    return {**{name: _limited(name, value) for name, value in texts.items()}, "rating": rating}


def trace_headers(traceparent: str | None) -> dict[str, str]:
    """The header that carries a W3C trace context; for None or "" OpenTelemetry's current one, where it is used.

    Raises:
        InvalidRequestError: ``traceparent`` is none.
    """
    if not traceparent:
        return _current_trace()
    if not isinstance(traceparent, str) or not _TRACEPARENT.fullmatch(traceparent):
        raise InvalidRequestError(f"traceparent: {traceparent!r} is not VERSION-TRACE-PARENT-FLAGS in hexadecimal")
    return {"traceparent": traceparent}


def _current_trace() -> dict[str, str]:
    if "opentelemetry.trace" not in sys.modules:  # then no span can have been started
        return {}
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return {name: value for name, value in carrier.items() if name == "traceparent"}


def check_timeout(seconds: float) -> float:
    """Return ``seconds`` when a wait can be that long; raise InvalidRequestError otherwise."""
    seconds = _real("timeout", seconds)
    if not 0 < seconds <= _LONGEST_TIMEOUT_S:
        raise InvalidRequestError(f"timeout: {seconds:g} is not above 0 and at most {_LONGEST_TIMEOUT_S:g} seconds")
    return seconds


def check_count(name: str, value: int, least: int) -> int:
    """Return ``value`` when it is a number of things; raise InvalidRequestError otherwise."""
    if _integer(name, value, "INT32") < least:
        raise InvalidRequestError(f"{name}: {value} is below {least}")
    return value


def _limited(name: str, value: object) -> str:
    text, limit = _text(name, value), protocol.FEEDBACK_LIMITS[name]
    if len(text) > limit:
        raise InvalidRequestError(f"{name}: {len(text)} characters are more than {limit}; send a shorter one")
    return text


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidRequestError(f"{name}: must be str, not {type(value).__name__}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        bad = value[error.start]
        raise InvalidRequestError(
            f"{name}: character {error.start} ({bad!r}) is half of a surrogate pair and is no text"
        ) from None
    return value


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
