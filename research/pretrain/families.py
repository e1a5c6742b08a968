"""Families of requests (``research/data/families``): sentences that help any request of a family, and which to take.

A family is wider than a kind of the grammar: "find the cause of an error message", "plan a trip". Readers chose, for
each training pair of the teacher and each trained kind of the grammar, its family and the two to five sentences that an
expert would put behind it. So a request that nothing was trained on still belongs to a family. ``requests``
has more prompts, which readers wrote for each family.

Families that are easily confused are one group (``groups.toml``), with one sentence that helps every request of all of
them. A complement begins with it: where the model is sure of the group alone, it ends there.
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

CHOSEN = 2
"""How many of the chosen sentences stand behind the group's."""


GROUPS = "groups.toml"


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
        if path.name != GROUPS
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


@cache
def group_sentences() -> tuple[str, ...]:
    """The sentence of each family's group, in the order of :func:`families`."""
    groups = tomllib.loads((DATA / "families" / GROUPS).read_text(encoding="utf-8"))["group"]
    found = {name: group["sentence"] for group in groups for name in group["families"]}
    return tuple(found[family.name] for family in families())


def text_of(choice: Choice, rng: random.Random | None = None) -> str:
    """The group's sentence and the first of the chosen ones; with ``rng``, some of the chosen ones in their order."""
    chosen = range(len(choice.sentences))
    places = sorted(rng.sample(chosen, min(CHOSEN, len(chosen)))) if rng else chosen[:CHOSEN]
    sentences = families()[choice.family].sentences
    return " ".join([group_sentences()[choice.family], *(sentences[choice.sentences[i]] for i in places)])
