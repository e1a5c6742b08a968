"""Checks of a request's texts."""

import re

from neuro_latent_core.errors import InvalidInput
from neuro_latent_core.guard import is_blank
from neuro_latent_core.limits import ADAPTER_NAME, MAX_ADAPTER_NAME, MAX_PROMPT_CHARACTERS
from neuro_latent_core.protocol import ADAPTER, EVERY_ADAPTER, RAW_PROMPT

NAMES_SHOWN = 10


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


def asked_adapter(raw: bytes | str) -> str:
    """The adapter that a request names, or :data:`EVERY_ADAPTER`.

    Raises:
        InvalidInput: it can be no name.
    """
    return EVERY_ADAPTER if raw in (EVERY_ADAPTER, EVERY_ADAPTER.encode()) else check_adapter(raw)


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
