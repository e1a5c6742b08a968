"""How the command line says things: one line on stderr, an exit code, no traceback."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from neuro_latent_client.errors import InvalidRequestError, NeuroLatentError


def note(text: str) -> None:
    """Say something beside the answer, on stderr."""
    typer.echo(" ".join(text.split()), err=True)


def fail(text: str, *, exit_code: int = 1) -> NoReturn:
    """Say what went wrong in one line on stderr, and stop."""
    note(text)
    raise typer.Exit(exit_code)


@contextmanager
def errors_as_lines() -> Iterator[None]:
    """Exit 2 for what the user can correct in the command, 1 for all other errors of the client."""
    try:
        yield
    except InvalidRequestError as error:
        fail(f"error: {error}", exit_code=2)
    except NeuroLatentError as error:
        fail(f"error: {error}")
