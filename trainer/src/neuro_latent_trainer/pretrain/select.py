"""Which prompt pairs the embedded adapter is trained on.

The pair file holds rewrites of user prompts (what the product is for), synthetic pairs, titles with long prompts whose
content cannot be inferred from the title (they teach to invent: left out), and narrow question-repair tasks that
outnumber the rest by far (a few of one kind stay, so that a question may stay a question).
"""

import json
import random
from pathlib import Path

from neuro_latent_trainer.jsonl import parse_json_line

LIMITS = {
    "oneprompted_v2": 2000,
    "oneprompted_v1_synthetic": 1500,
    "disfl_qa": 150,
}
"""The most rows of each source; the others are left out."""

MAX_WORDS = 90
"""Longer enhanced prompts are left out: the small generator cannot learn them."""


def select_pairs(pairs: Path, output: Path, seed: int = 0) -> dict[str, int]:
    """Write the chosen rows of ``pairs`` to ``output`` (JSON lines); returns how many of each source."""
    with pairs.open(encoding="utf-8") as file:
        rows = [parse_json_line(line, pairs, number) for number, line in enumerate(file, start=1)]
    random.Random(seed).shuffle(rows)
    taken = dict.fromkeys(LIMITS, 0)
    with output.open("w", encoding="utf-8") as chosen:
        for row in rows:
            source = row["source"]
            if taken.get(source, 0) >= LIMITS.get(source, 0) or len(row["enhanced_prompt"].split()) > MAX_WORDS:
                continue
            taken[source] += 1
            chosen.write(json.dumps(row, ensure_ascii=False) + "\n")
    return taken
