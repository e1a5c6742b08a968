"""What a fault has led to, as a row of the table, and the table in docs/reliability.md."""

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

BEGIN = "<!-- begin: written by make chaos -->"
END = "<!-- end: written by make chaos -->"

HEAD = "| fault | tries | requests | failed: error | hang | wrong | seconds down | rows acknowledged | lost | leaks |"


@dataclass(frozen=True)
class Outcome:
    """One row.

    Attributes:
        name: of the fault.
        tries: how often it was made.
        requests: sent while it was made and until the server was back, feedback included.
        errors: failed requests that ended with an error that says so (503, 500, a refused connection), by its name.
        hangs: requests without an answer in their time.
        wrong: answers that are not what the model writes, or errors of a kind that they must not be.
        down_s: the longest time in which no request was answered; 0 where none failed.
        rows, lost: feedback that was acknowledged, and how much of it is in no database.
        leaks: what is left behind: processes, files in /dev/shm, run folders, open descriptors.
        trouble: why the server (or the training) did not come back as it should.
        skipped: why it was not tried here.
        note: what is worth telling.
    """

    name: str
    tries: int = 0
    requests: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    hangs: int = 0
    wrong: int = 0
    down_s: float = 0.0
    rows: int = 0
    lost: int = 0
    leaks: tuple[str, ...] = ()
    trouble: str = ""
    skipped: str = ""
    note: str = ""

    @property
    def is_bad(self) -> bool:
        """Whether something happened that must not: the run then ends with exit code 1."""
        return bool(self.hangs or self.wrong or self.lost or self.leaks or self.trouble)

    def remarks(self) -> str:
        """The errors by name, and what is worth telling."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.errors.items()))
        parts = (
            kinds,
            self.note,
            *(f"LEFT: {leak}" for leak in self.leaks),
            self.trouble and f"FAILED: {self.trouble}",
        )
        return "; ".join(part for part in parts if part)


def table(outcomes: list[Outcome]) -> str:
    """The rows in Markdown, what they were followed by below."""
    lines = [HEAD, "|---|" + "---:|" * (HEAD.count("|") - 2)]
    for one in outcomes:
        cells = [one.tries, one.requests, one.errors.total(), one.hangs, one.wrong, f"{one.down_s:.1f}"]
        cells += [one.rows, one.lost, len(one.leaks)]
        lines.append(
            f"| {one.name} | " + (" | ".join(map(str, cells)) if not one.skipped else "skipped" + " |" * 8) + " |"
        )
    remarks = [(one.name, (one.skipped and f"skipped: {one.skipped}") or one.remarks()) for one in outcomes]
    return "\n".join([*lines, "", *(f"- {name}: {remark}" for name, remark in remarks if remark)])


def write(page: Path, text: str) -> None:
    """Put the generated part into a page, between its marks."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"{page} has no lines {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def failed(name: str, why: str) -> Outcome:
    """The row of a scenario that did not get to its end."""
    return replace(Outcome(name), trouble=why)
