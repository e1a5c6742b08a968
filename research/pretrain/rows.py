"""Training rows, raw prompt -> complement: of the grammar, the teacher's pairs, and texts with nothing to add."""

import hashlib
import json
import random
import string
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

from neuro_latent_core.guard.language import is_english
from research.pretrain.families import Choice, choices, requests, text_of
from research.pretrain.grammar import DATA, HELD_OUT_ROWS, PASTED, Kind, kinds, one_in
from research.pretrain.noise import around, hasty

NO_KIND = -1
WATCHED = 25
COUNTS = (1, 1, 2, 2, 2, 3)
"""How many details a complement of the grammar has."""


@dataclass(frozen=True)
class Row:
    """A prompt and what stands behind it.

    Attributes:
        kind: position in :func:`~research.pretrain.grammar.kinds`, or NO_KIND.
        failed: a complement that is wrong, "" where there is none.
        choice: which sentences of which family would help; None where no family fits.
    """

    raw: str
    complement: str
    kind: int = NO_KIND
    failed: str = ""
    choice: Choice | None = None

    @property
    def enhanced(self) -> str:
        """The whole prompt."""
        return f"{self.raw}\n\n{self.complement}" if self.complement else self.raw

    def advised(self, rng: random.Random | None = None) -> "Row":
        """The row with its family's sentences as complement, some of them with ``rng``; as it is without a choice."""
        if not self.choice:
            return self
        return replace(self, complement=text_of(self.choice, rng if self.kind != NO_KIND else None))


@cache
def teacher() -> tuple[Row, ...]:
    """All pairs of the teacher, in the order of their files."""
    found = []
    for path in sorted((DATA / "teacher").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            raw, complement = row["raw"].strip(), row["complement"].strip()
            choice = choices()[0].get(raw.lower()) if complement else None
            found.append(Row(raw, complement, failed=row.get("failed", "").strip(), choice=choice))
    return tuple(found)


@cache
def teacher_split() -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Training and held-out pairs: a tenth by a hash of the raw prompt."""
    rows = teacher()
    held_out = {row.raw.lower() for row in rows if one_in(HELD_OUT_ROWS, row.raw)}
    return (
        tuple(row for row in rows if row.raw.lower() not in held_out),
        tuple(row for row in rows if row.raw.lower() in held_out),
    )


@cache
def watched_pairs() -> tuple[Row, ...]:
    """One in 25 training pairs with a choice: the generator and the intent do not see them, their loss is watched."""
    return tuple(row for row in teacher_split()[0] if row.choice and one_in(WATCHED, "watched " + row.raw))


@cache
def written_requests() -> tuple[Row, ...]:
    """The prompts that readers wrote for the families, with the chosen sentences."""
    return tuple(Row(raw, text_of(choice), choice=choice) for raw, choice in requests())


@cache
def _learned_pairs() -> tuple[Row, ...]:
    watched = set(watched_pairs())
    return (*(row for row in teacher_split()[0] if row not in watched), *written_requests())


def judged_pairs() -> list[Row]:
    """Held-out pairs with a complement in a hash's order: the first are judged as served, the next for the gate."""
    rows = [row for row in teacher_split()[1] if row.complement]
    return sorted(rows, key=lambda row: hashlib.sha256(b"judge" + row.raw.encode()).digest())


def texts_to_leave_alone() -> tuple[list[str], list[str]]:
    """English held-out texts to which nothing should be added, in halves: to fit the gate on, and to measure it on."""
    found = [row.raw for row in teacher_split()[1] if not row.complement and is_english(row.raw)]
    found.sort(key=lambda raw: hashlib.sha256(b"alone" + raw.encode()).digest())
    return found[::2], found[1::2]


@cache
def trained_kinds() -> tuple[int, ...]:
    """Positions of the kinds that are trained on."""
    return tuple(i for i, kind in enumerate(kinds()) if not kind.held_out)


def details_of(kind: Kind, rng: random.Random, count: int | None = None) -> list[str]:
    """Some of a kind's details, in a random order."""
    return rng.sample(kind.details, min(count or rng.choice(COUNTS), len(kind.details)))


def grammar_row(rng: random.Random, passage: Callable[[random.Random], str], noise: bool = True) -> Row:
    """A request of a kind that is trained on.

    Args:
        rng: decides everything.
        passage: gives a piece of text, to paste behind requests about "this text".
        noise: whether it is typed in a hurry, and with a sentence around it.
    """
    index = rng.choice(trained_kinds())
    kind = kinds()[index]
    form = rng.choice(kind.forms)
    raw = kind.request(rng, form)
    details = details_of(kind, rng)
    if noise:
        raw = hasty(raw, rng)
        if PASTED.search(form) and rng.random() < 0.4:
            raw = f"{raw}{rng.choice((':', ':', '', '.'))}{rng.choice((' ', chr(10), chr(10) * 2))}{passage(rng)}"
        elif rng.random() < 0.03:
            other = kinds()[rng.choice(trained_kinds())]
            second = hasty(other.request(rng, rng.choice(other.forms)), rng)
            raw = f"{raw}{rng.choice((' and ', '. also ', '. Then ', ', and then ', chr(10)))}{second}"
            details = [*details_of(kind, rng, 1), *details_of(other, rng, 1)]
        else:
            raw = around(raw, rng)
    return Row(raw, " ".join(details), index, choice=choices()[1].get(kind.name))


def teacher_row(rng: random.Random) -> Row:
    """A pair of the teacher or a request of a family, its prompt sometimes typed in a hurry."""
    row = rng.choice(_learned_pairs())
    return row if rng.random() < 0.5 else replace(row, raw=hasty(row.raw, rng))


def every_pair() -> tuple[Row, ...]:
    """The pairs that are learned from: with a choice, or with nothing to add."""
    return (*(row for row in _learned_pairs() if row.choice), *_empty_pairs())


@cache
def _empty_pairs() -> tuple[Row, ...]:
    return tuple(row for row in teacher_split()[0] if not row.complement)


def empty_row(rng: random.Random, passage: Callable[[random.Random], str]) -> Row:
    """A text with nothing to add: of the teacher's, a passage of some text, or nonsense."""
    chance = rng.random()
    if chance < 0.5:
        return rng.choice(_empty_pairs())
    if chance < 0.85:
        words = passage(rng).split()
        start = rng.randrange(max(1, len(words) // 2))
        text = " ".join(words[start : start + rng.randint(2, 30)])
        return Row(text if rng.random() < 0.6 else text.lower(), "")
    letters = rng.choice(
        (string.ascii_lowercase, string.digits + " .,-", string.printable[:94], "asdfjkl; ", "aeioubcdst ")
    )
    return Row("".join(rng.choices(letters, k=rng.randint(2, 40))).strip() or "x", "")
