"""What the checks find, and how it is shown: a list for people, one JSON line for programs."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from neuro_latent_serving.errors import UsageError


class Severity(IntEnum):
    """How bad a finding is."""

    NOTE = 1  # worth knowing
    WARNING = 2  # it works, but not as well or as safely as it should
    ERROR = 3  # the server does not start, or answers wrongly


NOTE, WARNING, ERROR = Severity
STYLES = {NOTE: "cyan", WARNING: "yellow", ERROR: "bold red"}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: how bad, a stable id, the file, package or setting, what is wrong, what to do."""

    severity: Severity
    id: str
    where: str
    what: str
    mend: str


Outcome = Finding | str
"""What a check yields: a finding, or a text about what is as it should be."""

Groups = Mapping[str, list[Outcome]]


def examine(name: str, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    """A group of checks. One that fails itself becomes a finding too.

    Raises:
        UsageError: an option has a value that cannot be used.
    """
    try:
        yield from outcomes
    except UsageError:
        raise
    except Exception as error:
        what, mend = f"{type(error).__name__}: {error}", "Please report it, with this line."
        yield Finding(ERROR, "check-failed", f"checks of {name}", what, mend)


def findings(outcomes: Iterable[Outcome]) -> list[Finding]:
    """Those that are findings."""
    return [outcome for outcome in outcomes if isinstance(outcome, Finding)]


def passed(outcomes: Iterable[Outcome]) -> list[str]:
    """Those that are as they should be."""
    return [outcome for outcome in outcomes if isinstance(outcome, str)]


def count(groups: Groups) -> Counter[Severity]:
    """How many findings there are of each severity."""
    return Counter(finding.severity for outcomes in groups.values() for finding in findings(outcomes))


def show(groups: Groups, console: Console) -> None:
    """Print the list and a summary."""

    def indented(columns: int, *parts: str | tuple[str, str]) -> None:
        console.print(Padding(Text.assemble(*parts), (0, 0, 0, columns), expand=False))

    for name, outcomes in groups.items():
        indented(0, (name, "bold"), "" if findings(outcomes) else ("  ok", "green"))
        for text in passed(outcomes):
            indented(2, (text, "dim"))
        worst_first = sorted(findings(outcomes), key=lambda finding: (-finding.severity, finding.mend))
        for mend, same in groupby(worst_first, key=lambda finding: finding.mend):
            for f in same:
                severity = f.severity.name.lower(), STYLES[f.severity]
                indented(2, severity, f" {f.id}  ", (f.where, "bold"), f": {f.what}")
            indented(4, f"→ {mend}")
    found = count(groups)
    texts = [f"{found[s]} {s.name.lower()}{'' if found[s] == 1 else 's'}" for s in reversed(Severity) if found[s]]
    console.print()
    indented(0, (", ".join(texts) or "nothing is wrong", "bold"))


def facts(groups: Groups, exit_code: int) -> dict[str, Any]:
    """The same for a program."""
    found = count(groups)
    return {
        "exit_code": exit_code,
        **{f"{severity.name.lower()}s": found[severity] for severity in reversed(Severity)},
        "findings": [
            {"group": name, **vars(finding), "severity": finding.severity.name.lower()}
            for name, outcomes in groups.items()
            for finding in findings(outcomes)
        ],
        "passed": {name: passed(outcomes) for name, outcomes in groups.items()},
    }
