"""What a benchmark says: machine, settings, tables and progress on stderr; one JSON line last on stdout."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from neuro_latent_benchmarks import hardware

FORMAT = 1
"""Of the JSON line; it changes when a field changes its meaning."""

console = Console(stderr=True, width=None if sys.stderr.isatty() else 140)


class BenchError(RuntimeError):
    """A benchmark cannot be run; the text says why and what to do."""


def heading(
    benchmark: str, settings: Mapping[str, Any], extra_versions: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Print machine, versions and settings; they are also the start of the JSON line."""
    machine, versions = hardware.hardware(), hardware.versions() | dict(extra_versions or {})
    table = Table(title=f"benchmark: {benchmark}", show_header=False, title_justify="left")
    table.add_row("processor", f"{machine['cpu']} (family/model {machine['family_model']}), {machine['cores']} cores")
    table.add_row("flags", " ".join(machine["flags"]) or "none of those that matter")
    table.add_row("memory", f"{machine['memory_gib']} GiB; load {machine['load']}")
    table.add_row("versions", ", ".join(f"{name} {version}" for name, version in versions.items()))
    table.add_row("settings", ", ".join(f"{name} {_short(value)}" for name, value in settings.items()))
    console.print(table)
    if machine["load"] > hardware.BUSY:
        note(f"other programs are running (load {machine['load']}): times may be too long")
    return {
        "format": FORMAT,
        "benchmark": benchmark,
        "hardware": machine,
        "versions": versions,
        "settings": dict(settings),
    }


def note(text: str) -> None:
    """Something that the reader of the numbers should know."""
    console.print(f"note: {text}", style="yellow", highlight=False, markup=False)


def progress(text: str) -> None:
    """What is done now."""
    console.print(text, style="dim", highlight=False, markup=False)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table; the first column is text, all others are numbers."""
    shown = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        shown.add_column(column, justify="right" if number else "left")
    for row in rows:
        shown.add_row(*(_short(value) for value in row))
    console.print(shown)


def json_line(result: Mapping[str, Any]) -> None:
    """The whole result on stdout, one line."""
    sys.stdout.write(json.dumps(result, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if value is None:
        return "–"
    if isinstance(value, list | tuple):
        return " ".join(map(_short, value))
    return str(value)
