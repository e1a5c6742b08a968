"""The training file of the embedded adapter: ``python -m research.pretrain.adapter_data --output DIR``.

Writes ``train.jsonl`` (the grammar's trained kinds, the teacher's training pairs and the families' requests, with the
sentences chosen for them, and their family as ``kind``) and ``held_out.jsonl`` (kinds and
pairs that neither the pair of models nor the adapter has seen), in the form that ``neuro-latent train`` reads; and
``new_kinds.jsonl`` and ``new_kinds_held_out.jsonl``, of twenty of those kinds, for an adapter that learns them alone.
"""

import argparse
import json
import random
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from research.pretrain.families import choices, families
from research.pretrain.grammar import kinds
from research.pretrain.noise import around, hasty
from research.pretrain.rows import NO_KIND, Row, details_of, teacher_split, written_requests

ROWS_A_KIND = 8
NEW_KINDS, NEW_ROWS, NEW_HELD_OUT = 20, 50, 10
ADAPTER_COUNTS = (2, 2, 3)
"""How many details a complement has: a generator that has seen one to three tends to write one."""
EMPTY_SHARE = 0.15
"""Least share of the training rows to which nothing is to be added, as far as there are so many."""
LICENCE = "Apache-2.0"


def grammar_rows(held_out: bool, rows_a_kind: int) -> Iterator[Row]:
    """Requests of each kind that is (or is not) held out, every one of another form as far as there are forms."""
    rng = random.Random(11 + held_out)
    for index, kind in enumerate(kinds()):
        if kind.held_out == held_out:
            forms = rng.sample(kind.forms, len(kind.forms))
            for number in range(rows_a_kind):
                raw = kind.request(rng, forms[number % len(forms)])
                raw = raw if held_out else around(hasty(raw, rng) or raw, rng)
                details = " ".join(details_of(kind, rng, rng.choice(ADAPTER_COUNTS)))
                yield Row(raw, details, index, choice=choices()[1].get(kind.name)).advised(rng)


def new_kind_rows() -> tuple[list[Row], list[Row]]:
    """Twenty kinds that nothing was trained on, as a team's own requests: rows to train on, and rows of other forms."""
    rng, train, held_out = random.Random(13), [], []
    names = sorted((kind.name for kind in kinds() if kind.held_out), key=lambda name: sha256(name.encode()).digest())
    for index, kind in enumerate(kinds()):
        if kind.name in names[:NEW_KINDS]:
            forms = kind.held_out_forms or kind.forms[-1:]
            others = [form for form in kind.forms if form not in forms]
            for rows, some, count in ((train, others, NEW_ROWS), (held_out, forms, NEW_HELD_OUT)):
                rows += [
                    Row(
                        kind.request(rng, rng.choice(some)),
                        " ".join(details_of(kind, rng, rng.choice(ADAPTER_COUNTS))),
                        index,
                    )
                    for _ in range(count)
                ]
    return train, held_out


def record(row: Row) -> str:
    """A row as a line of the file."""
    values = {"raw_prompt": row.raw, "complement": row.complement, "source": "teacher", "licence": LICENCE}
    if row.kind != NO_KIND:
        values |= {"kind": kinds()[row.kind].name, "source": "grammar"}
    if row.choice:
        values["kind"] = families()[row.choice.family].name
    if row.failed:
        values["failed_prompts"] = row.failed
    return json.dumps(values, ensure_ascii=False) + "\n"


def main() -> None:
    """Read the options and write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=10_000, help="most rows of train.jsonl, drawn at random")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for name, held_out, count in (("train", False, ROWS_A_KIND), ("held_out", True, 5)):
        pairs = [row.advised() for row in teacher_split()[held_out] if row.choice or held_out or not row.complement]
        pairs += () if held_out else written_requests()
        lines = [record(row) for row in (*grammar_rows(held_out, count), *pairs)]
        if not held_out:
            rng = random.Random(17)
            empty = [record(row) for row in pairs if not row.complement]
            empty = rng.sample(empty, min(len(empty), round(EMPTY_SHARE * options.rows)))
            lines = [*rng.sample(lines, min(options.rows - len(empty), len(lines))), *empty]
            lines = [*dict.fromkeys(lines)]
            lines = rng.sample(lines, len(lines))
        (options.output / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        print(f"{name}.jsonl: {len(lines)} rows")
    for name, rows in zip(("new_kinds", "new_kinds_held_out"), new_kind_rows(), strict=True):
        (options.output / f"{name}.jsonl").write_text("".join(map(record, rows)), encoding="utf-8")
        print(f"{name}.jsonl: {len(rows)} rows")


if __name__ == "__main__":
    main()
