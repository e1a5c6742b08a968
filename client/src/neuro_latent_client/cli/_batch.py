"""``neuro-latent optimize --file``: a row in, a row out, as many at a time as wanted."""

import asyncio
import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import typer

from neuro_latent_client.errors import InvalidRequestError, NeuroLatentError
from neuro_latent_client.options import GenerationOptions
from neuro_latent_client.results import Optimization, Progress
from neuro_latent_core.command_line import note
from neuro_latent_core.encoding import decode

from ._options import ConnectionOptions

Row = dict[str, Any]

ANSWER = ("enhanced_prompt", *(field.name for field in dataclasses.fields(Optimization)), "error", "message")
"""The columns that are written beside those of a row."""


def optimize_file(
    connection: ConnectionOptions, source: Path, output: Path | None, concurrency: int, options: GenerationOptions
) -> bool:
    """Answer all rows of ``source``; whether all have an answer.

    Rows are written in the order in which they end, each with all that its row had. Rows that have an answer in
    ``output`` are not asked again; those with an error are.

    Raises:
        InvalidRequestError: a file cannot be used, or a row has no prompt, or a column that the answer has too.
    """
    if output and output.resolve() == source.resolve():
        raise InvalidRequestError(f"{output} is both --file and --output; name another file as --output")
    rows = list(_read(source))
    answered = _answered(output) if output else []
    waiting = _without(rows, answered)
    if answered:
        note(f"note: {len(rows) - len(waiting)} of {len(rows)} rows have an answer in {output}")
    failures = 0
    with _opened(output, answered) as out, _bar(len(waiting)) as advance:

        def write(progress: Progress) -> None:
            nonlocal failures
            failures += isinstance(progress.outcome, NeuroLatentError)
            out.write(_line(_row(waiting[progress.index], progress.outcome)))
            out.flush()
            advance()

        async def ask() -> None:
            async with connection.async_client() as client:
                prompts = [row["raw_prompt"] for row in waiting]
                await client.optimize_many(prompts, concurrency=concurrency, on_progress=write, **options)

        asyncio.run(ask())
    if failures:
        again = "; the same command asks for them again" if output else ""
        note(f"error: {failures} of {len(waiting)} rows have no answer: see 'error' in them{again}")
    return not failures


def _row(row: Row, outcome: Optimization | NeuroLatentError) -> Row:
    if isinstance(outcome, NeuroLatentError):
        return {**row, "error": type(outcome).__name__, "message": str(outcome), "request_id": outcome.request_id}
    return {**row, "enhanced_prompt": outcome.text, **outcome.to_dict()}


def _read(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        row = _json(line)
        if not isinstance(row, dict) or not isinstance(row.get("raw_prompt"), str):
            raise InvalidRequestError(f'{path}:{number}: is not a row like {{"raw_prompt": "Create a function"}}')
        if taken := [name for name in ANSWER if name in row and name != "raw_prompt"]:
            raise InvalidRequestError(
                f"{path}:{number}: the answer has a column {' and a column '.join(taken)} too; rename the row's own"
            )
        try:
            json.dumps(row, allow_nan=False)
        except ValueError:
            raise InvalidRequestError(
                f"{path}:{number}: holds NaN, Infinity or a number that is too large, which are no JSON; write null"
            ) from None
        yield row


def _answered(output: Path) -> list[Row]:
    """The rows of an earlier run that need not be asked for again. One that was cut off in its line does."""
    *lines, _cut_off = _lines(output) if output.exists() else [""]
    rows = [_json(line) for line in lines]
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not row.keys() & {"sequences", "error"}:
            raise InvalidRequestError(f"{output}:{number}: is not from an earlier run; name another file as --output")
    return [row for row in rows if "sequences" in row]


def _without(rows: list[Row], answered: list[Row]) -> list[Row]:
    """The rows that have no answer yet. A prompt that stands twice needs two."""
    left = Counter(row.get("raw_prompt") for row in answered)
    left.subtract(row["raw_prompt"] for row in rows)
    waiting = []
    for row in reversed(rows):  # the first ones were answered first
        if left[row["raw_prompt"]] < 0:
            left[row["raw_prompt"]] += 1
            waiting.append(row)
    return waiting[::-1]


def _lines(path: Path) -> list[str]:
    try:
        return decode(path.read_bytes()).split("\n")
    except (OSError, ValueError) as error:
        raise InvalidRequestError(f"{path} cannot be read: {error}") from None


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _line(row: Row) -> str:
    """A row as a line of JSON. Half of a surrogate pair, which UTF-8 cannot hold, stays the escape that it came as."""
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace").decode() + "\n"


@contextmanager
def _opened(output: Path | None, answered: list[Row]) -> Iterator[TextIO]:
    """The output, with the answers of an earlier run in it."""
    if output is None:
        yield typer.get_text_stream("stdout", encoding="utf-8")
        return
    beside = output.with_name(output.name + ".part")
    try:
        beside.write_text("".join(map(_line, answered)), encoding="utf-8")
        beside.replace(output)
        stream = output.open("a", encoding="utf-8")
    except OSError as error:
        raise InvalidRequestError(f"{output} cannot be written: {error}") from None
    with stream:
        yield stream


@contextmanager
def _bar(total: int) -> Iterator[Any]:
    """A progress bar on stderr, where that is a terminal; gives what moves it by one."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)
