"""What the commands of the trainer share: options, how they are stopped, and how they fail."""

import errno
import functools
import inspect
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.progress import track

from neuro_latent_trainer.settings_model import Settings, choices_of, is_table, merged

if TYPE_CHECKING:
    from neuro_latent_trainer.data import Dataset
    from neuro_latent_trainer.training import Run

DataOption = Annotated[
    Path, typer.Option(help="Training data: .json, .jsonl, .csv or .parquet, one record a prompt.", metavar="FILE")
]
ColumnsOption = Annotated[
    str,
    typer.Option(
        help="Names of the file's columns, as raw=NAME,enhanced=NAME,complement=NAME,failed=NAME,kind=NAME.",
        metavar="MAP",
    ),
]
EmbeddingsOption = Annotated[
    Path | None,
    typer.Option(
        help="Cache of the frozen encoder's embeddings; runs on the same texts can share one.",
        metavar="DIR",
        show_default="RUN/embeddings",
    ),
]

Chosen = TypeVar("Chosen", bound=Settings)


def configured_by(
    model: type[Chosen], *shown: str, file: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command of a function that has a parameter of type ``model``.

    In the parameter's place come an option for each of its fields (``--help`` shows those of ``shown``) and, where not
    all are shown, ``--config``, ``--set`` and ``--show-config``. An option counts more than ``--set``, and that more
    than the file. A command that takes several models is decorated once for each, and ``file`` is true for one at most.
    """
    fields = {name: field for name, field in model.model_fields.items() if not is_table(field)}
    options: dict[str, Any] = {}
    for name in dict.fromkeys((*shown, *fields)):
        field, choices = fields[name], choices_of(fields[name])
        option = typer.Option(help=field.description, hidden=name not in shown, metavar="|".join(choices) or None)
        options[name] = Annotated[str if choices else field.annotation, option], field.default
    if file and len(shown) < len(model.model_fields):
        options |= _file_options(model)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters
        taken: dict[str, Any] = {"context": (typer.Context, inspect.Parameter.empty)}
        for name, parameter in own.items():
            taken |= options if parameter.annotation is model else {name: (parameter.annotation, parameter.default)}
        (target,) = (name for name, parameter in own.items() if parameter.annotation is model)

        @functools.wraps(command)
        def run(context: typer.Context, **values: Any) -> None:
            try:
                path = values.get("config_file") if file else None
                settings = model.read(path) if path else model()
                changes: dict[str, Any] = {}
                for assignment in (values.get("assignments") if file else None) or ():
                    changes = merged(changes, _assigned(assignment))
                sources = {name: context.get_parameter_source(name) for name in fields}
                given = [name for name, source in sources.items() if source and source.name == "COMMANDLINE"]
                settings = settings.replace(**merged(changes, {name: values[name] for name in given}))
            except (OSError, ValueError) as error:
                fail(Console(stderr=True), str(error), code=2)
            known = {**values, "context": context, target: settings}
            command(**{name: known[name] for name in own})

        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # what typer makes options of
            [
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
                for name, (annotation, default) in taken.items()
            ]
        )
        return run

    return decorate


def _file_options(model: type[Settings]) -> dict[str, Any]:
    """The options that take settings from a file or by name: annotation and default."""

    def show(wanted: bool) -> None:
        if wanted:
            typer.echo(model().to_toml(), nl=False)
            raise typer.Exit

    file = typer.Option("--config", help="TOML file of settings, as --show-config prints it.", metavar="FILE")
    one = typer.Option("--set", help="A setting by its name; may be repeated.", metavar="NAME=VALUE")
    shown = typer.Option(
        "--show-config", help="Print all settings, with defaults, and stop.", callback=show, is_eager=True
    )
    return {
        "config_file": (Annotated[Path | None, file], None),
        "assignments": (Annotated[list[str] | None, one], None),
        "show_config": (Annotated[bool, shown], False),
    }


def _assigned(assignment: str) -> dict[str, Any]:
    """``margins.ce=0.1`` as a nested dictionary."""
    name, equals, value = assignment.partition("=")
    if not equals:
        raise ValueError(f"--set takes NAME=VALUE, not {assignment!r}")
    nested: Any = value.strip()
    for part in reversed(name.strip().split(".")):
        nested = {part: nested}
    return dict(nested)


def say(console: Console, text: str, style: str = "") -> None:
    """Print a text as it is, in one piece."""
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def fail(console: Console, message: str, code: int = 1) -> NoReturn:
    """Print an error and end the command."""
    say(console, f"error: {message}", "red")
    raise typer.Exit(code)


def explain(error: Exception) -> str:
    """An error as the command tells it; a full disk comes with the way out."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{error}; free some space, then go on from the last checkpoint with --resume, or start again"
    return str(error)


def read_data(
    console: Console, path: Path, columns: str, *, strict: bool = False, report: Path | None = None
) -> "Dataset":
    """Read a data file, its columns named as ``--columns`` says, and print its bad rows; all of them go to the file
    ``report``, if one is named.

    Raises:
        DataError: as :func:`~neuro_latent_trainer.data.read_records`, or too many rows are bad to go on.
        ValueError: as there.
    """
    from neuro_latent_trainer.data import parse_columns, read_records, render_bad_rows

    data = read_records(path, parse_columns(columns) if columns else None, strict)
    if data.bad_rows:
        if report:
            report.parent.mkdir(parents=True, exist_ok=True)
            report.write_text("".join(f"{row}\n" for row in data.bad_rows), encoding="utf-8")
        say(console, render_bad_rows(data.bad_rows), "yellow")
    data.check_lost()
    return data


Unit = TypeVar("Unit")


def tracked(units: Iterable[Unit], name: str, total: int) -> Iterable[Unit]:
    """The same ``total`` units, with a progress bar of that name where stderr is a terminal; without a name none."""
    console = Console(stderr=True)
    return track(units, name, total, console=console, transient=True, disable=not (name and console.is_terminal))


@contextmanager
def stopping_with_a_checkpoint(run: "Run", console: Console) -> Iterator[None]:
    """While the run executes, Ctrl-C and SIGTERM end it after its step."""

    def stop(signum: int, frame: FrameType | None) -> None:
        run.stop_requested = True
        console.print("stopping after this step …")

    previous = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
