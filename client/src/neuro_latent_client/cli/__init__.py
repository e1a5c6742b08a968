"""The command ``neuro-latent``: ``optimize``, ``feedback``, ``health``; the rest from other distributions on demand.

Text goes to stdout, notes and errors to stderr. Exit codes: 0 done, 1 failure, 2 wrong usage, 130 interrupted.
"""

from typing import Annotated

import typer

from ._lazy import LazyGroup
from .feedback import feedback
from .health import health
from .optimize import optimize

app = typer.Typer(
    name="neuro-latent",
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Turn a raw prompt into a better prompt.",
)
app.command()(optimize)
app.add_typer(feedback)
app.command()(health)


def _print_version(wanted: bool) -> None:
    if wanted:
        from neuro_latent_client import __version__

        typer.echo(f"neuro-latent {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Options before the command."""


def main() -> None:
    """The console script."""
    app(prog_name="neuro-latent")
