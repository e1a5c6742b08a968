"""What is printed: a list by group for people, one JSON line for programs."""

from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from neuro_latent_serving.doctor.catalogue import Finding, Severity
from neuro_latent_serving.doctor.examine import Section

STYLES = {Severity.NOTE: "cyan", Severity.WARNING: "yellow", Severity.ERROR: "bold red"}
INDENT = 2


def counts(sections: Iterable[Section]) -> Counter[Severity]:
    """How many findings there are of each severity."""
    return Counter(finding.severity for section in sections for finding in section.findings)


def show(sections: list[Section], console: Console) -> None:
    """The list, and a summary; nothing of a group that had nothing to look at."""
    for section in sections:
        if not (section.passed or section.findings):
            continue
        worst = section.worst
        mark = Text("ok", "green") if worst is None else Text(worst.name.lower(), STYLES[worst])
        console.print(Text.assemble((section.name, "bold"), "  ", mark))
        for text in section.passed:
            console.print(indented(Text(text, "dim"), INDENT))
        worst_first = sorted(section.findings, key=lambda finding: (-finding.severity, finding.mend))
        for mend, same in groupby(worst_first, key=lambda finding: finding.mend):
            for finding in same:
                console.print(indented(shown(finding), INDENT))
            if mend:
                console.print(indented(Text(f"→ {mend}"), 2 * INDENT))
    console.print()
    console.print(Text(summary(sections), "bold"))


def indented(text: Text, columns: int) -> Padding:
    """A text that wraps under its own beginning."""
    return Padding(text, (0, 0, 0, columns), expand=False)


def shown(finding: Finding) -> Text:
    """One finding: how bad, its id, where, and what."""
    return Text.assemble(
        (finding.severity.name.lower(), STYLES[finding.severity]),
        f" {finding.id}  ",
        (finding.where, "bold"),
        f": {finding.what}",
    )


def summary(sections: list[Section]) -> str:
    """How many of each."""
    found = counts(sections)
    texts = [f"{found[s]} {s.name.lower()}{'' if found[s] == 1 else 's'}" for s in reversed(Severity) if found[s]]
    return ", ".join(texts) or "nothing is wrong"


def facts(sections: list[Section], exit_code: int) -> dict[str, Any]:
    """The same for a program."""
    found = counts(sections)
    return {
        "exit_code": exit_code,
        "errors": found[Severity.ERROR],
        "warnings": found[Severity.WARNING],
        "notes": found[Severity.NOTE],
        "findings": [
            {
                "id": finding.id,
                "severity": finding.severity.name.lower(),
                "group": section.name,
                "where": finding.where,
                "what": finding.what,
                "mend": finding.mend,
            }
            for section in sections
            for finding in section.findings
        ],
        "passed": {section.name: section.passed for section in sections},
    }
