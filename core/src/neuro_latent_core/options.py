"""What a request may ask for. Each option is declared once, in :class:`RequestOptions`.

From it come the tensors of the served models, the checks of the tokenizer step, the gateway's schema and the command
line. A new option is a field there and a line in :class:`GenerationOptions`, the same for a type checker.
"""

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypedDict, cast

from neuro_latent_core.errors import InvalidInput
from neuro_latent_core.limits import MAX_BEAMS, MAX_DEADLINE_MS, MAX_NEW_TOKENS, MAX_SEQUENCES

TritonType = Literal["BYTES", "INT32", "INT64", "FP32", "BOOL"]


@dataclass(frozen=True, slots=True)
class Option:
    """The declaration of one option.

    Attributes:
        triton_type: of its tensor, [B, 1].
        default: None leaves it to the server.
        low, high: the least and the greatest value; ``low`` itself is not allowed with ``above_low``.
        help: what it does, in a few words.
    """

    triton_type: TritonType
    default: float | None
    low: float
    high: float
    help: str
    above_low: bool = False

    @property
    def kind(self) -> type[int] | type[float]:
        """The Python type of a value."""
        return float if self.triton_type == "FP32" else int


def _option(
    default: float | None, kind: TritonType, low: float, high: float, text: str, *, above_low: bool = False
) -> Any:
    return field(default=default, metadata={"option": Option(kind, default, low, high, text, above_low)})


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """How to write an answer. Defaults are greedy.

    Raises:
        InvalidInput: a field is outside its limits.
    """

    max_length: int = _option(200, "INT32", 1, MAX_NEW_TOKENS, "the most tokens written")
    num_return_sequences: int = _option(
        1, "INT32", 1, MAX_SEQUENCES, "how many answers; more than one needs a temperature above 0, or as many beams"
    )
    temperature: float = _option(0.0, "FP32", 0, 100, "0 is greedy, above it samples")
    top_k: int = _option(0, "INT32", 0, 2**31 - 1, "sample from the k likeliest tokens; 0 is off")
    top_p: float = _option(1.0, "FP32", 0, 1, "sample from this much probability; 1 is off", above_low=True)
    num_beams: int = _option(1, "INT32", 1, MAX_BEAMS, "width of the beam search; 1 is off")
    length_penalty: float = _option(1.0, "FP32", -2, 10, "of the beam search; above 0 prefers longer answers")
    seed: int | None = _option(None, "INT64", 0, 2**63 - 1, "makes sampling repeatable")
    deadline_ms: int = _option(0, "INT32", 0, MAX_DEADLINE_MS, "answer with what is written by then; 0 is off")
    min_confidence: float | None = _option(
        None, "FP32", 0, 1, "below it the raw prompt comes back; 0 is off; by default the adapter's own"
    )

    def __post_init__(self) -> None:
        for name, option in OPTIONS.items():
            value = getattr(self, name)
            if value is not None or option.default is not None:
                check_option(name, value)
        if self.num_beams > 1 and self.temperature > 0:
            raise InvalidInput(
                f"num_beams is {self.num_beams} and temperature {self.temperature:g}: a beam search does not sample; "
                "set temperature to 0 or num_beams to 1"
            )
        if 1 < self.num_beams < self.num_return_sequences:
            raise InvalidInput(
                f"num_return_sequences must be at most num_beams ({self.num_beams}), not {self.num_return_sequences}"
            )
        if self.num_return_sequences > 1 and self.num_beams == 1 and self.greedy:
            raise InvalidInput(
                f"num_return_sequences is {self.num_return_sequences}, but temperature 0 (or top_k 1) is greedy and "
                "has only one answer; set temperature above 0 (0.8, say), or num_beams"
            )

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "RequestOptions":
        """Build from the fields that a request gave; None is the default.

        Raises:
            InvalidInput: a field is unknown or outside its limits.
        """
        if unknown := sorted(set(values) - OPTIONS.keys()):
            raise InvalidInput(f"unknown option {unknown[0]!r}; known are {', '.join(sorted(OPTIONS))}")
        return cls(**{name: value for name, value in values.items() if value is not None})

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature == 0 or self.top_k == 1


OPTIONS: dict[str, Option] = {field.name: field.metadata["option"] for field in fields(RequestOptions)}


class GenerationOptions(TypedDict, total=False):
    """How to write the answer, as a client sends it. What is left out or None is not sent: the server's default holds.

    Attributes:
        max_length: the most tokens written (server's default 200).
        num_return_sequences: how many answers (1).
        temperature: 0 is greedy (0), above it samples.
        top_k: sample from the k likeliest tokens (0, off).
        top_p: sample from the likeliest tokens that hold this probability (1, off).
        num_beams: width of the beam search (1, off).
        length_penalty: of the beam search; above 0 prefers longer answers (1).
        seed: makes sampling repeatable.
        deadline_ms: after this time the server answers with what it has, ``finish_reason`` ``deadline`` (0, none). It
            counts from the arrival of each attempt. The server is never given more time than is left of ``timeout``:
            what it writes later nobody reads. So a ``deadline_ms`` below ``timeout`` brings an answer in time, and
            without one a call that is late is a :class:`DeadlineError`.
        min_confidence: the least confidence, in [0, 1], to serve a text; below it the raw prompt comes back,
            ``finish_reason`` ``withheld`` (the adapter's own threshold; 0 switches the gate off).
        adapter: the name of the adapter that answers, where a server has several ("default").
    """

    max_length: int | None
    num_return_sequences: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    num_beams: int | None
    length_penalty: float | None
    seed: int | None
    deadline_ms: int | None
    min_confidence: float | None
    adapter: str | None


def check_option(name: str, value: object) -> float:
    """The value of an option.

    Raises:
        InvalidInput: it is no number of the option's type, or outside its limits.
    """
    option = OPTIONS[name]
    is_integer = option.kind is int
    if not isinstance(value, numbers.Integral if is_integer else numbers.Real) or isinstance(value, bool):
        expected = f"a whole number between {option.low} and {option.high}" if is_integer else "a number"
        raise InvalidInput(f"{name} must be {expected}, not {value!r}")
    number: float = option.kind(cast(float, value))
    above = number > option.low if option.above_low else number >= option.low
    if not (math.isfinite(number) and above and number <= option.high):
        limits = f"above {option.low} and at most" if option.above_low else f"between {option.low} and"
        raise InvalidInput(f"{name} must be {limits} {option.high}, not {number if is_integer else f'{number:g}'}")
    return number
