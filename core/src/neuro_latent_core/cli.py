"""The command ``neuro-latent``: lists the commands of all distributions, and imports one only when it runs.

A distribution declares the entry point group ``neuro_latent.commands`` (``neuro_latent.feedback_commands`` for what
follows ``neuro-latent feedback``). An entry point's name is the command's name; it loads to a function (a command, as
for ``typer.Typer.command``) or to a ``typer.Typer`` (a sub-command group).

Text goes to stdout, notes and errors to stderr. Exit codes: 0 done, 1 failure, 2 wrong usage, 130 interrupted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from neuro_latent_core.command_line import fail

if TYPE_CHECKING:  # typer's own copy of click: private, so only for the type checker
    from typer._click import Command, Context


@dataclass(frozen=True, slots=True)
class KnownCommand:
    """A command of this project, for ``--help`` without an import, and the part of it that brings the command."""

    summary: str
    part: str


COMMANDS: Final = {
    "optimize": KnownCommand("Make a raw prompt better.", "client"),
    "feedback": KnownCommand("Say how good an answer was.", "client"),
    "health": KnownCommand("Check a server: exit code 0 when it is ready, else 1.", "client"),
    "train": KnownCommand("Train an adapter on your prompts.", "trainer"),
    "evaluate": KnownCommand("Measure an adapter beside baselines.", "trainer"),
    "score": KnownCommand("Make training data of what prompts lead to, by a language model.", "trainer"),
    "retrain": KnownCommand("Train an adapter on feedback, and promote it if it is no worse.", "trainer"),
    "export": KnownCommand("Write a Triton model repository from an adapter.", "export"),
    "serve": KnownCommand("Serve a model repository with Triton.", "serving"),
    "adapters": KnownCommand("Show, add and remove the adapters of a repository, also while it is served.", "serving"),
    "doctor": KnownCommand("Find what is wrong with an installation and a repository, and how to mend it.", "serving"),
    "gateway": KnownCommand("Serve the REST API and the page in front of a Triton elsewhere.", "serving"),
    "gateway-key": KnownCommand("Make an API key for the gateway.", "serving"),
    "bench": KnownCommand("Measure latency and throughput.", "benchmarks"),
}
FEEDBACK_COMMANDS: Final = {
    "export": KnownCommand("Write stored feedback as JSON lines.", "serving"),
    "stats": KnownCommand("Count stored feedback.", "serving"),
    "purge": KnownCommand("Delete stored feedback of a user, or of an age.", "serving"),
}
"""What follows ``neuro-latent feedback``."""


class LazyGroup(TyperGroup):
    """The known commands, then those of other entry points."""

    entry_point_group: ClassVar[str] = "neuro_latent.commands"
    known: ClassVar[Mapping[str, KnownCommand]] = COMMANDS

    def list_commands(self, ctx: "Context") -> list[str]:
        found = {entry_point.name for entry_point in entry_points(group=self.entry_point_group)}
        return [*self.known, *sorted(found - self.known.keys())]

    def get_command(self, ctx: "Context", cmd_name: str) -> "Command | None":
        found = tuple(entry_points(group=self.entry_point_group, name=cmd_name))
        known = self.known.get(cmd_name)
        if found:
            return _InstalledCommand(found[0], known)
        return _MissingCommand(cmd_name, known) if known else None


class FeedbackGroup(LazyGroup):
    """What follows ``neuro-latent feedback``."""

    entry_point_group: ClassVar[str] = "neuro_latent.feedback_commands"
    known: ClassVar[Mapping[str, KnownCommand]] = FEEDBACK_COMMANDS


class _InstalledCommand(TyperCommand):
    """Stands for a command of another distribution in the help, and becomes that command when it is called."""

    def __init__(self, entry_point: EntryPoint, known: KnownCommand | None) -> None:
        self._entry_point = entry_point
        self._distribution = entry_point.dist.name if entry_point.dist else "another distribution"
        super().__init__(entry_point.name, help=known.summary if known else f"A command of {self._distribution}.")

    def make_context(
        self, info_name: str | None, args: list[str], parent: "Context | None" = None, **extra: Any
    ) -> "Context":
        # The context carries the command that then runs, so this is the one place where the real one comes in.
        return self._load().make_context(info_name, args, parent, **extra)

    def _load(self) -> "Command":
        try:
            loaded = self._entry_point.load()
        except (ImportError, AttributeError) as error:
            fail(f"{self.name} cannot be loaded from {self._distribution}: {error}. Install that distribution again")
        if isinstance(loaded, typer.Typer):
            return get_group(loaded)
        single = typer.Typer(add_completion=False)
        single.command(self.name)(loaded)
        return get_command(single)


class _MissingCommand(TyperCommand):
    """A command of this project whose distribution is not installed."""

    def __init__(self, name: str, known: KnownCommand) -> None:
        self._distribution = f"neuro-latent-{known.part}"
        super().__init__(name, help=known.summary, rich_help_panel="Not installed")

    def make_context(
        self, info_name: str | None, args: list[str], parent: "Context | None" = None, **extra: Any
    ) -> "Context":
        fail(f"neuro-latent {self.name} is not installed: pip install {self._distribution}", exit_code=2)


app = typer.Typer(
    name="neuro-latent",
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Turn a raw prompt into a better prompt.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from neuro_latent_core import __version__

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
