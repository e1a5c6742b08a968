"""Rows of feedback, as ``neuro-latent feedback export`` writes them."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from neuro_latent_trainer.data import DataError, check_text, json_lines

_MAY_BE_ABSENT = ("edited_prompt", "user", "created_at", "model_version")


@dataclass(frozen=True, slots=True)
class RatedAnswer:
    """A rating of an answer, with its edit.

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


def read_feedback(path: Path) -> tuple[list[RatedAnswer], list[str]]:
    """The ratings of a file of JSON lines, oldest first, and what is wrong with its other rows, without their texts.

    Raises:
        DataError: the file cannot be read, or has rows and every one is wrong.
    """
    ratings: list[RatedAnswer] = []
    wrong: list[str] = []
    try:
        with path.open("rb") as file:
            for number, row in json_lines(file):
                try:
                    if isinstance(row, str):
                        raise ValueError(row)
                    ratings.append(RatedAnswer(**dict(_fields(row))))
                except ValueError as error:
                    wrong.append(f"{path}:{number}: {error}")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if wrong and not ratings:
        raise DataError(f"{path} holds no feedback, as `neuro-latent feedback export` writes it: {wrong[0]}")
    # Times are ISO 8601 in UTC, so their order is that of the texts; rows without one keep theirs.
    return sorted(ratings, key=lambda rated: rated.created_at), wrong


def _fields(row: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in (f.name for f in fields(RatedAnswer)):
        value = row.get(name)
        if name == "rating":
            if type(value) is not int or value not in (1, -1):
                raise ValueError("rating must be 1 or -1")
        else:
            value = "" if value is None and name in _MAY_BE_ABSENT else value
            check_text(value, name)
        yield name, value
