"""How a command says things beside its output (one line on stderr, an exit code, no traceback), and calls another."""

import sys
from pathlib import Path
from typing import NoReturn

import typer


def note(text: str) -> None:
    """Say something beside the answer, on stderr."""
    typer.echo(" ".join(text.split()), err=True)


def fail(text: str, *, exit_code: int = 1) -> NoReturn:
    """Say what went wrong in one line on stderr, and stop."""
    note(text)
    raise typer.Exit(exit_code)


def program() -> list[str]:
    """``neuro-latent`` of this very environment, which need not be the one on the PATH."""
    installed = Path(sys.executable).parent / "neuro-latent"
    return [str(installed)] if installed.is_file() else [sys.executable, "-m", "neuro_latent_core"]
