"""A command group that lists the commands of other distributions and imports one only when it runs.

Other distributions declare the entry point group ``neuro_latent.commands`` (``neuro_latent.feedback_commands`` for what
follows ``neuro-latent feedback``). An entry point's name is the command's name; it loads to a function (a command, as
for ``typer.Typer.command``) or to a ``typer.Typer`` (a sub-command group).
"""

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from ._known import KNOWN_COMMANDS, KnownCommand
from ._report import fail

if TYPE_CHECKING:  # typer's own copy of click: private, so only for the type checker
    from typer._click import Command, Context

ENTRY_POINT_GROUP = "neuro_latent.commands"


class LazyGroup(TyperGroup):
    """The commands registered on the app, then the known ones, then those of other entry points."""

    entry_point_group: ClassVar[str] = ENTRY_POINT_GROUP
    known: ClassVar[Mapping[str, KnownCommand]] = KNOWN_COMMANDS

    def list_commands(self, ctx: "Context") -> list[str]:
        found = {entry_point.name for entry_point in entry_points(group=self.entry_point_group)}
        core = list(super().list_commands(ctx))
        return core + [name for name in [*self.known, *sorted(found - self.known.keys())] if name not in core]

    def get_command(self, ctx: "Context", cmd_name: str) -> "Command | None":
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            return command
        found = tuple(entry_points(group=self.entry_point_group, name=cmd_name))
        known = self.known.get(cmd_name)
        if found:
            return _InstalledCommand(found[0], known)
        return _MissingCommand(cmd_name, known) if known else None


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
        app = typer.Typer(add_completion=False)
        app.command(self.name)(loaded)
        return get_command(app)


class _MissingCommand(TyperCommand):
    """A command of this project whose distribution is not installed."""

    def __init__(self, name: str, known: KnownCommand) -> None:
        self._known = known
        super().__init__(name, help=known.summary, rich_help_panel="Not installed")

    def make_context(
        self, info_name: str | None, args: list[str], parent: "Context | None" = None, **extra: Any
    ) -> "Context":
        distribution, source = self._known.distribution, self._known.source
        fail(f"neuro-latent {self.name} comes with the distribution {distribution}: pip install {source}", exit_code=2)
