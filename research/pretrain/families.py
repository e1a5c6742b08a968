"""Families of requests (``research/data/families``): sentences that help any request of a family, and which to take.

A family is wider than a kind of the grammar: "find the cause of an error message", "plan a trip". Readers chose, for
each training pair of the teacher and each trained kind of the grammar, its family and the two to five sentences that an
expert would put behind it. So a request that nothing was trained on still belongs to a family. ``requests``
has more prompts, which readers wrote for each family.
"""

import json
import random
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from research.pretrain.grammar import DATA

COUNTS = (2, 2, 3)
"""How many of a kind's sentences are taken; a pair has its own choice."""


@dataclass(frozen=True)
class Family:
    """One family of requests: its name and its sentences."""

    name: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """A family's position in :func:`families`, and positions of its sentences, the most useful first."""

    family: int
    sentences: tuple[int, ...]


@cache
def families() -> tuple[Family, ...]:
    """All families, in the order of their files."""
    return tuple(
        Family(f"{path.stem}/{family['id']}", tuple(family["sentences"]))
        for path in sorted((DATA / "families").glob("*.toml"))
        for family in tomllib.loads(path.read_text(encoding="utf-8"))["family"]
    )


@cache
def choices() -> tuple[dict[str, Choice], dict[str, Choice]]:
    """What was chosen for raw prompts of the teacher (by their text in lower case), and for kinds (by their name)."""
    of_prompts: dict[str, Choice] = {}
    of_kinds: dict[str, Choice] = {}
    for row, choice in _read(DATA / "families"):
        if "kind" in row:
            of_kinds[row["kind"]] = choice
        else:
            of_prompts[row["raw"].lower()] = choice
    return of_prompts, of_kinds


@cache
def requests() -> tuple[tuple[str, Choice], ...]:
    """Prompts that readers wrote for each family, and what was chosen for them."""
    return tuple((row["raw"], choice) for row, choice in _read(DATA / "families" / "requests"))


def _read(folder: Path) -> Iterator[tuple[dict[str, Any], Choice]]:
    position = {family.name: number for number, family in enumerate(families())}
    for path in sorted(folder.glob("*.jsonl")):
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            yield row, Choice(position[f"{path.stem}/{row['family']}"], tuple(i - 1 for i in row["sentences"]))


def text_of(choice: Choice, rng: random.Random | None = None) -> str:
    """The chosen sentences; with ``rng``, some of them in their order."""
    chosen = list(choice.sentences)
    if rng:
        chosen = sorted(rng.sample(range(len(chosen)), min(rng.choice(COUNTS), len(chosen))))
        chosen = [choice.sentences[i] for i in chosen]
    return " ".join(families()[choice.family].sentences[i] for i in chosen)
