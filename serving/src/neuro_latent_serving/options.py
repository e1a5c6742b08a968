"""What a request may ask for, and the limits that the server puts on it."""

import math
import numbers
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from neuro_latent_core.guard import is_blank
from neuro_latent_core.protocol import ADAPTER, MAX_DEADLINE_MS, RAW_PROMPT
from neuro_latent_serving.errors import InvalidInput

MAX_PROMPT_CHARACTERS = 32_768
"""The longest raw prompt that is read at all, in characters; the models then read its first tokens."""

MAX_ENCODER_TOKENS = 2048
"""The most encoder states that the decoder takes; the ensembles never send more than soft prompts and 512 tokens."""

MAX_NEW_TOKENS = 512
MAX_SEQUENCES = 8
MAX_BEAMS = 8
MAX_INT64 = 2**63 - 1

MAX_ADAPTER_NAME = 64
ADAPTER_NAME = f"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_ADAPTER_NAME - 1}}}"
"""A name is a folder's name too."""
NAMES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """How to decode. Defaults are greedy.

    Attributes:
        max_length: the most tokens written, 1 to 512.
        num_return_sequences: how many texts a prompt gets, 1 to 8; more than one needs a temperature above 0, or as
            many beams.
        temperature: 0 is greedy; above 0 the logits are divided by it and a token is drawn.
        top_k: draw among the k most likely tokens; 0 is off.
        top_p: draw among the most likely tokens that together reach this probability; 1 is off.
        num_beams: 1 takes the most likely token each time; 2 to 8 search for the most likely text with this many beams.
        length_penalty: of the beam search: above 0 prefers longer texts, below 0 shorter ones.
        seed: the same seed gives the same text, whatever else is running; None draws one.
        deadline_ms: stop after this time and return what is written so far; 0 is none.
        min_confidence: the least confidence with which a text is served, 0 to 1; 0 serves every text, None leaves it to
            the server and the adapter.

    Raises:
        InvalidInput: a field is outside its limits.
    """

    max_length: int = 200
    num_return_sequences: int = 1
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    num_beams: int = 1
    length_penalty: float = 1.0
    seed: int | None = None
    deadline_ms: int = 0
    min_confidence: float | None = None

    def __post_init__(self) -> None:
        _check_range("max_length", self.max_length, 1, MAX_NEW_TOKENS)
        _check_range("num_return_sequences", self.num_return_sequences, 1, MAX_SEQUENCES)
        _check_range("top_k", self.top_k, 0, 2**31 - 1)
        _check_range("deadline_ms", self.deadline_ms, 0, MAX_DEADLINE_MS)
        if self.seed is not None:
            _check_range("seed", self.seed, 0, MAX_INT64)
        for name in ("temperature", "top_p", "length_penalty"):
            if not isinstance(getattr(self, name), numbers.Real):
                raise InvalidInput(f"{name} must be a number, not {getattr(self, name)!r}")
        if not (math.isfinite(self.temperature) and 0 <= self.temperature <= 100):
            raise InvalidInput(f"temperature must be between 0 (greedy) and 100, not {self.temperature:g}")
        if not (math.isfinite(self.length_penalty) and -2 <= self.length_penalty <= 10):
            raise InvalidInput(f"length_penalty must be between -2 and 10, not {self.length_penalty:g}")
        if not (math.isfinite(self.top_p) and 0 < self.top_p <= 1):
            raise InvalidInput(f"top_p must be above 0 and at most 1, not {self.top_p:g}")
        if self.min_confidence is not None:
            check_confidence(self.min_confidence)
        _check_range("num_beams", self.num_beams, 1, MAX_BEAMS)
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
    def from_values(cls, values: Mapping[str, Any]) -> "GenerationOptions":
        """Build from the fields that a request gave; None is the default.

        Raises:
            InvalidInput: a field is unknown or outside its limits.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise InvalidInput(f"unknown option {unknown[0]!r}; known are {', '.join(sorted(known))}")
        return cls(**{name: value for name, value in values.items() if value is not None})

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature == 0 or self.top_k == 1


def check_confidence(value: float) -> float:
    """A least confidence.

    Raises:
        InvalidInput: it is no number between 0 and 1.
    """
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise InvalidInput(f"min_confidence must be a number, not {value!r}")
    if not 0 <= value <= 1:
        raise InvalidInput(f"min_confidence must be between 0 and 1, not {value:g}")
    return float(value)


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise InvalidInput(f"{name} must be a whole number between {low} and {high}, not {value!r}")
    if not low <= value <= high:
        raise InvalidInput(f"{name} must be between {low} and {high}, not {value}")


def check_prompt(raw: bytes | str) -> str:
    """The raw prompt as text.

    Raises:
        InvalidInput: it is not UTF-8, holds a NUL, is empty or blank, or is too long.
    """
    return check_text(RAW_PROMPT, raw, MAX_PROMPT_CHARACTERS)


def check_adapter(raw: bytes | str) -> str:
    """The name of an adapter; whether there is one, only the projector knows.

    Raises:
        InvalidInput: it can be no name.
    """
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    if not re.fullmatch(ADAPTER_NAME, text):
        raise InvalidInput(
            f"{ADAPTER} must be a name of at most {MAX_ADAPTER_NAME} letters, digits, '.', '_' and '-' that begins "
            f"with a letter or a digit, not {text[: MAX_ADAPTER_NAME + 1]!r}"
        )
    return text


def unknown_adapter(name: str, known: list[str]) -> InvalidInput:
    """The error of a request for an adapter that is not among those that are known."""
    more = f" and {len(known) - NAMES_SHOWN} more" if len(known) > NAMES_SHOWN else ""
    return InvalidInput(f"adapter {name!r} is not known here; known are {', '.join(known[:NAMES_SHOWN])}{more}")


def check_text(name: str, raw: bytes | str, limit: int, *, may_be_blank: bool = False) -> str:
    """The field ``name`` as text of at most ``limit`` characters.

    Raises:
        InvalidInput: it is not UTF-8, holds a NUL, is too long, or is empty or blank where it may not be.
    """
    if isinstance(raw, bytes):
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInput(
                f"{name} is not valid UTF-8: byte 0x{raw[error.start]:02x} at position {error.start}"
            ) from None
    else:
        text = raw
        if lone := re.search("[\ud800-\udfff]", text):
            raise InvalidInput(f"{name} is not valid Unicode: a lone surrogate at position {lone.start()}")
    if len(text) > limit:
        raise InvalidInput(f"{name} has {len(text)} characters; the limit is {limit}")
    if "\0" in text:
        raise InvalidInput(f"{name} holds a NUL character at position {text.index(chr(0))}")
    if not may_be_blank and is_blank(text):
        raise InvalidInput(f"{name} holds only white space and invisible characters" if text else f"{name} is empty")
    return text
