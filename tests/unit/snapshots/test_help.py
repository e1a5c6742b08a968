"""``--help`` of every command: its page is a file that is named after the command."""

import importlib
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

from tests.unit.snapshots.conftest import Compare

# A dumb terminal has 80 columns unless both are given.
TERMINAL = {"TERM": "dumb", "COLUMNS": "120", "LINES": "50"}


def commands(command: Any, path: tuple[str, ...], parent: Any = None) -> Iterator[tuple[str, ...]]:
    """A command and all below it, as the words that call them."""
    yield path
    context = command.make_context(path[-1], [], parent, resilient_parsing=True)
    group = context.command  # what comes from another distribution is loaded by now
    for name in group.list_commands(context) if hasattr(group, "list_commands") else ():
        yield from commands(group.get_command(context, name), (*path, name), context)


def test_the_help_of_every_command(compare: Compare) -> None:
    pages = {}
    for script in entry_points(group="console_scripts"):
        if script.dist is None or not script.dist.name.startswith("neuro-latent"):
            continue
        app = importlib.import_module(script.module).app
        for path in commands(get_command(app), (script.name,)):
            done = CliRunner().invoke(app, [*path[1:], "--help"], env=TERMINAL, prog_name=script.name)
            assert done.exit_code == 0, done.output
            pages["-".join(path) + ".txt"] = "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())
    compare(pages)
