"""``neuro-latent feedback export|stats|purge``: what the operator of a server does with its feedback."""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from neuro_latent_core.command_line import fail
from neuro_latent_serving.errors import StoreDamaged, StoreUnavailable
from neuro_latent_serving.feedback.feedback_store import FeedbackStore
from neuro_latent_serving.settings import FEEDBACK_VARIABLE, feedback_url

AGE = re.compile(r"(\d+)([hdw])")
HOURS = {"h": 1, "d": 24, "w": 7 * 24}

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Export, count and purge stored feedback.")


def parse_age(text: str) -> datetime:
    """The time that was ``90d``, ``12h`` or ``8w`` ago.

    >>> parse_age("2d") < datetime.now(UTC)
    True
    """
    if not (match := AGE.fullmatch(text)):
        raise typer.BadParameter(f"{text!r} is no age: write 12h, 90d or 8w")
    try:
        return datetime.now(UTC) - timedelta(hours=int(match[1]) * HOURS[match[2]])
    except OverflowError:
        raise typer.BadParameter(f"{text!r} is before all calendars") from None


Url = Annotated[
    str | None,
    typer.Option(envvar=FEEDBACK_VARIABLE, help="The database. Default: the file that `neuro-latent serve` uses."),
]
User = Annotated[str | None, typer.Option(help="Only the feedback of this user.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON line.")]


@app.command()
def export(
    url: Url = None,
    output: Annotated[Path | None, typer.Option(help="Write to this file. Default: stdout.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Only feedback from this time on.")] = None,
    user: User = None,
    model_version: Annotated[str | None, typer.Option(help="Only feedback of answers of this version.")] = None,
) -> None:
    """Write feedback as JSON lines, oldest first."""
    with _store(url) as store:
        rows = store.records(since=since, user=user, model_version=model_version)
        lines = (json.dumps(row.as_json(), ensure_ascii=False) + "\n" for row in rows)
        try:
            if output is None:
                sys.stdout.writelines(lines)
            else:
                with output.open("w", encoding="utf-8") as file:
                    file.writelines(lines)
        except OSError as error:
            fail(f"error: {output or 'stdout'} cannot be written: {error.strerror}")


@app.command()
def stats(url: Url = None, as_json: Json = False) -> None:
    """Count what is stored."""
    with _store(url) as store:
        counts = asdict(store.stats())
    if as_json:
        typer.echo(json.dumps(counts, default=datetime.isoformat))
        return
    for name, value in counts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{version or 'unknown'}: {count}" for version, count in value.items())
        typer.echo(f"{name.replace('_', ' '):<18}{'-' if value in (None, '') else value}")


@app.command()
def purge(
    url: Url = None,
    user: User = None,
    older_than: Annotated[str | None, typer.Option(help="Only feedback older than this: 12h, 90d, 8w.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete feedback for ever: of a user, or older than an age, or what is both."""
    if user is None and older_than is None:
        raise typer.BadParameter("say what to delete: --user NAME, --older-than AGE, or both")
    before = None if older_than is None else parse_age(older_than)
    if not yes:
        typer.confirm("Delete it for ever?", abort=True, err=True)
    with _store(url) as store:
        deleted = store.purge(user=user, older_than=before)
    typer.echo(json.dumps({"deleted": deleted}) if as_json else f"deleted {deleted}")


@contextmanager
def _store(url: str | None) -> Iterator[FeedbackStore]:
    """The store; its errors become one line."""
    try:
        store = FeedbackStore(url or feedback_url())
    except ValueError as error:
        fail(f"error: {error}", exit_code=2)
    try:
        yield store
    except (StoreDamaged, StoreUnavailable) as error:
        fail(f"error: {error}: {getattr(error.__cause__, 'orig', error.__cause__)}")
    finally:
        store.close()
