"""Options of commands, declared once: fields of a frozen dataclass, with their types, ranges, defaults and help."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, dataclass_transform, get_type_hints

import pydantic.dataclasses
from pydantic import AfterValidator
from typer.models import OptionInfo

from neuro_latent_serving.errors import UsageError

Config = TypeVar("Config")
Command = Callable[..., None]


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def checked(cls: type[Config]) -> type[Config]:
    """Make a class a frozen dataclass that checks its values; a wrong one is a UsageError that names its option."""
    made: Any = pydantic.dataclasses.dataclass(frozen=True, config=pydantic.ConfigDict(extra="forbid"))(cls)
    check = made.__init__

    def init(self: Any, *values: Any, **named: Any) -> None:
        try:
            check(self, *values, **named)
        except pydantic.ValidationError as error:
            wrong = error.errors()[0]
            place = wrong["loc"][0]
            name = place if isinstance(place, str) else dataclasses.fields(made)[place].name
            option = _declared(made)[name][0] if name in _declared(made) else name
            what = wrong["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
            raise UsageError(f"--{option.replace('_', '-')} {wrong['input']}: {what}") from None

    made.__init__ = init
    return made  # type: ignore[no-any-return]


def takes(config: type[Any], *fields: str, after: str) -> Callable[[Command], Command]:
    """Give a command the options that ``fields`` declare (by default all of ``config``), behind its parameter
    ``after``; its ``**options`` get their values."""

    def add(command: Command) -> Command:
        known = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.kind != p.VAR_KEYWORD]
        place = 1 + [parameter.name for parameter in known].index(after)
        declared, defaults = _declared(config), config()
        for field in reversed(fields or tuple(declared)):
            name, annotation = declared[field]
            kind, default = inspect.Parameter.POSITIONAL_OR_KEYWORD, getattr(defaults, field)
            known.insert(place, inspect.Parameter(name, kind, default=default, annotation=annotation))
        command.__signature__ = inspect.Signature(known)  # type: ignore[attr-defined]
        return command

    return add


def given(config: type[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """What a command's options say of the fields of ``config``, for its constructor."""
    return {field: options[name] for field, (name, _) in _declared(config).items() if name in options}


def _declared(config: type[Any]) -> dict[str, tuple[str, Any]]:
    """For each field that declares an option, the option's name as a command gets it, and its annotation."""
    found, plain = {}, get_type_hints(config)  # typer knows no type that is itself annotated
    for field, annotation in get_type_hints(config, include_extras=True).items():
        for option in getattr(annotation, "__metadata__", ()):
            if isinstance(option, OptionInfo):
                flag = option.default if isinstance(option.default, str) else field
                found[field] = flag.removeprefix("--").replace("-", "_"), Annotated[plain[field], option]
    return found


def _check_port(port: int) -> int:
    if port and not 1024 <= port <= 65535:
        raise ValueError("not a usable port: use 1024 to 65535, or 0 for any free one; for 80 or 443, a proxy in front")
    return port


def _check_log_file(file: Path) -> Path:
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise ValueError("not a file in an existing folder")
    return file


Port = Annotated[int, AfterValidator(_check_port)]
LogFile = Annotated[Path, AfterValidator(_check_log_file)]
