"""Rows of feedback, as ``neuro-latent feedback export`` writes them."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from neuro_latent_core.encoding import check_utf8
from neuro_latent_trainer.data import DataError, check_text
from neuro_latent_trainer.jsonl import parse_json_line

_MAY_BE_ABSENT = ("edited_prompt", "user", "created_at", "model_version")


@dataclass(frozen=True, slots=True)
class Opinion:
    """What somebody said of an answer.

    ``edited_prompt`` is "" where nothing was edited, ``model_version`` where the row does not say who answered.
    """

    request_id: str
    raw_prompt: str
    enhanced_prompt: str
    rating: int
    edited_prompt: str = ""
    user: str = ""
    created_at: str = ""
    model_version: str = ""


def read_feedback(path: Path) -> tuple[list[Opinion], list[str]]:
    """The opinions of a file of JSON lines, oldest first, and what is wrong with its other rows, without their texts.

    Raises:
        DataError: the file cannot be read, or has rows and every one is wrong.
    """
    opinions: list[Opinion] = []
    wrong: list[str] = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if number == 1:
                    check_utf8(line[:4])
                    line = line.removeprefix(codecs.BOM_UTF8)
                if line.strip():
                    try:
                        opinions.append(_opinion(parse_json_line(line.decode(), path, number), path, number))
                    except (RecursionError, ValueError) as error:
                        wrong.append(_without_text(error, path, number))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if wrong and not opinions:
        raise DataError(f"{path} holds no feedback, as `neuro-latent feedback export` writes it: {wrong[0]}")
    # Times are ISO 8601 in UTC, so their order is that of the texts; rows without one keep theirs.
    return sorted(opinions, key=lambda opinion: opinion.created_at), wrong


def _without_text(error: Exception, path: Path, number: int) -> str:
    # The message of a decoding error quotes the bytes.
    return f"{path}:{number}: not valid UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)


def _opinion(row: dict[str, Any], path: Path, number: int) -> Opinion:
    return Opinion(**dict(_fields(row, f"{path}:{number}")))


def _fields(row: dict[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    for name in (f.name for f in fields(Opinion)):
        value = row.get(name)
        if name == "rating":
            if type(value) is not int or value not in (1, -1):
                raise ValueError(f"{where}: rating must be 1 or -1")
        else:
            value = "" if value is None and name in _MAY_BE_ABSENT else value
            check_text(value, f"{where}: {name}")
        yield name, value
