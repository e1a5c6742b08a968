"""Everyday requests with a rewrite, of a grammar that is kept beside this file.

Published pairs are for code, for role play or for long technical texts; of what people ask otherwise a small generator
sees too little to write about it. These texts say little that is new, but they are whole, sensible and on the subject,
and half of their subjects are put together of random words, so that a subject has to be taken from the prompt.
"""

import random
import re
import string
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

GRAMMAR = Path(__file__).with_name("everyday.toml")
ENDINGS = ("", "", "", "", ".", "?", "!", " please", " pls", " thanks")
"""How a hasty request ends."""
MIN_DETAILS, MAX_DETAILS = 2, 4
OPEN = 0.5
"""Share of the subjects that are put together."""
MAY_BE_ADDED = {"count", "number"}
"""Slots that a rewrite may fill where the request does not."""


def slots_of(text: str) -> set[str]:
    """The names in braces."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@dataclass(frozen=True)
class Task:
    """One kind of request.

    Attributes:
        raw: forms of the request.
        first: forms of the first sentence of its rewrite.
        details: sentences that may follow.
        slots: what may stand for each {name} in them.
        open: forms of subjects for some of the slots, and the words that stand in these.
    """

    raw: tuple[str, ...]
    first: tuple[str, ...]
    details: tuple[str, ...]
    slots: dict[str, tuple[str, ...]]
    open: dict[str, tuple[str, ...]]

    def firsts_for(self, raw: str) -> list[str]:
        """The first sentences that keep the most of what a request names, and name nothing else."""
        named = slots_of(raw)
        optional = {name for name, values in self.slots.items() if "" in values}
        fitting = [first for first in self.first if slots_of(first) <= named | optional | MAY_BE_ADDED]
        kept = [len(slots_of(first) & named) for first in fitting]
        return [first for first, count in zip(fitting, kept, strict=True) if count == max(kept)]

    def value(self, name: str, rng: random.Random) -> str:
        """What stands for a slot."""
        if name not in self.open or rng.random() >= OPEN:
            return rng.choice(self.slots[name])
        text = re.sub(r"\{(\w+)\}", lambda found: rng.choice(self.open[found[1]]), rng.choice(self.open[name]))
        return re.sub(r"\ba (?=[aeiou])", "an ", text)

    def pair(self, rng: random.Random) -> tuple[str, str]:
        """A raw prompt, as someone typed it, and its rewrite."""
        raw = rng.choice(self.raw)
        first = rng.choice(self.firsts_for(raw))
        count = rng.randint(MIN_DETAILS, MAX_DETAILS)
        details = [self.details[i] for i in sorted(rng.sample(range(len(self.details)), count))]
        filled = {name: self.value(name, rng) for name in self.slots}
        filled |= dict.fromkeys(slots_of(first) - slots_of(raw) - MAY_BE_ADDED, "")
        request = raw.format_map(filled).rstrip("?") + rng.choice(ENDINGS)
        if rng.random() < 0.5:
            request = request[0].upper() + request[1:]
        return request, " ".join([first.format_map(filled), *details])


@cache
def read_tasks() -> tuple[Task, ...]:
    """The tasks of the grammar."""
    grammar = tomllib.loads(GRAMMAR.read_text(encoding="utf-8"))
    tasks, forms_of_subjects = [], {name: tuple(values) for name, values in grammar["open"].items()}
    for table in grammar["task"]:
        forms = {name: tuple(table.pop(name)) for name in ("raw", "first", "details")}
        slots = {name: tuple(values) for name, values in {**grammar["slots"], **table}.items()}
        tasks.append(Task(**forms, slots=slots, open=forms_of_subjects))
    return tuple(tasks)


def everyday_pairs(count: int, seed: int) -> Iterator[tuple[str, str]]:
    """Yield ``count`` pairs of a raw prompt and its rewrite, no raw prompt twice."""
    rng, seen = random.Random(seed), set[str]()
    while len(seen) < count:
        raw, enhanced = rng.choice(read_tasks()).pair(rng)
        if raw not in seen:
            seen.add(raw)
            yield raw, enhanced
