"""Settings that are declared once: name, type, range, default and help of each stand in one field of a model.

From the fields come the checks and their messages, the file that ``--config`` reads and ``--show-config`` prints, and
the options of the command line (:func:`~neuro_latent_trainer.command_line.configured_by`).
"""

import difflib
import json
import textwrap
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticKnownError

from neuro_latent_core.encoding import decode

_KINDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


class Settings(BaseModel):
    """Frozen settings, checked when they are made; a subclass may hold another as a table of a file.

    Raises:
        ValueError: a setting is unknown, of another type or out of its range; the message names it, its value and what
            is allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ValueError("; ".join(self._problem(found) for found in error.errors())) from None

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation in (int, float):
            raise PydanticKnownError("int_type")
        return value

    @classmethod
    def _problem(cls, error: Any) -> str:
        """What is wrong, in words; ``error`` is one of pydantic's."""
        name = ".".join(map(str, error["loc"]))
        if error["type"] == "value_error":  # in words already: of a table, or of several settings together
            return f"{name}.{error['ctx']['error']}" if name else str(error["ctx"]["error"])
        if error["type"] == "extra_forbidden":
            near = difflib.get_close_matches(name, cls.model_fields, 3) or cls.model_fields
            return f"no setting is called {name!r}; there are: {', '.join(near)}"
        if error["type"] == "missing":
            return f"{name} is missing"
        field = cls.model_fields[name]
        limits = limits_of(field) if error["type"].startswith(("greater", "less", "finite", "literal")) else ""
        return f"{name} must be {limits or kind_of(field)}, not {error['input']!r}"

    def replace(self, **changes: Any) -> Self:
        """The same with some changes; a dictionary changes only what it names of a table.

        Raises:
            ValueError: as at construction.
        """
        return type(self)(**merged(self.model_dump(), changes))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Settings of a TOML file; what it does not name keeps its default.

        Raises:
            OSError: it cannot be read.
            ValueError: it is no TOML, or a setting is wrong; the message names the file.
        """
        try:
            return cls().replace(**tomllib.loads(decode(path.read_bytes())))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def to_toml(self) -> str:
        """All settings that have a description, each below a comment with it; :meth:`read` takes it."""
        lines: list[str] = []
        for name, field in sorted(type(self).model_fields.items(), key=lambda item: is_table(item[1])):
            if field.description is None:
                continue
            value, limits = getattr(self, name), limits_of(field)
            help = field.description.removesuffix(".") + (f" ({limits})." if limits else ".")
            comment = textwrap.wrap(help, 110, initial_indent="# ", subsequent_indent="# ")
            if isinstance(value, Settings):
                lines += ["", *comment, f"[{name}]", value.to_toml().rstrip()]
            else:
                text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # which TOML wants escaped
                lines += [*comment, f"{name} = {text}"]
        return "".join(f"{line}\n" for line in lines)


def is_table(field: FieldInfo) -> bool:
    """Whether a field holds other settings."""
    return isinstance(field.annotation, type) and issubclass(field.annotation, Settings)


def choices_of(field: FieldInfo) -> tuple[str, ...]:
    """The values that a field allows; none where it is no choice."""
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else ()


def kind_of(field: FieldInfo) -> str:
    """The type of a field in words."""
    return "a table" if is_table(field) else _KINDS.get(field.annotation, "text")


def limits_of(field: FieldInfo) -> str:
    """What a field allows, as ``at least 0 and below 1``; "" where it has no limits."""
    if choices := choices_of(field):
        return f"one of {', '.join(choices)}"
    found = {name: getattr(limit, name) for limit in field.metadata for name in _LIMITS if hasattr(limit, name)}
    return " and ".join(f"{_LIMITS[name]} {limit}" for name, limit in found.items())


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Both, the tables of both merged too."""
    tables = {
        name: merged(under[name], value)
        for name, value in over.items()
        if isinstance(value, Mapping) and isinstance(under.get(name), Mapping)
    }
    return {**under, **over, **tables}
