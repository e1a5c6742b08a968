"""Which prompt pairs the embedded adapter is trained on.

The pair file holds rewrites of user prompts (what the product is for), synthetic pairs, titles with prompts whose
content cannot be inferred from the title (they teach to invent: only short ones stay), questions to repair, which
outnumber the rest by far, and short questions with a rephrasing, many of them of one narrow kind each. Of those a few
stay: without any, an adapter takes a short everyday question for something it was never asked. The preference file adds
rewrites of which one led to a better answer than another. The corpus adds requests with the hasty version that someone
might have typed (``requests.py``), and the grammar of everyday requests its pairs (``everyday.py``). Rewrites that
have lost their prompt's subject are left out.
"""

import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from neuro_latent_client.guard import is_off_subject
from neuro_latent_trainer.jsonl import parse_json_line
from neuro_latent_trainer.pretrain.everyday import everyday_pairs
from neuro_latent_trainer.pretrain.overlap import HeldOut
from neuro_latent_trainer.pretrain.requests import asks_for_code, hasty
from neuro_latent_trainer.pretrain.tokens import read_requests

COLUMNS = ("raw_prompt", "enhanced_prompt", "failed_prompts", "source", "licence")
EVERYDAY = "neuro_latent_everyday"
LIMITS = {
    "oneprompted_v2": 2000,
    "oneprompted_v1_synthetic": 1500,
    "oneprompted_pairwise": 2000,
    "disfl_qa": 2500,
    "awesome_chatgpt_prompts": 2000,
    "rar_csqa*": 120,
    "rar_*": 50,
    "corpus_request": 2000,
    "corpus_code_request": 1000,
    EVERYDAY: 3000,
}
"""The most rows of each source; the first pattern that matches its name holds, and what none does is left out."""

MAX_WORDS = {"awesome_chatgpt_prompts": 80}
"""Longer enhanced prompts of these sources are left out: their content cannot be inferred from the title."""


SYNTHETIC = ("oneprompted_v1_synthetic",)
"""Of these sources, rewrites that make a program out of a request for none are left out."""

LEFT_OUT = "repeat held-out texts"


def select_pairs(
    pairs: Path,
    output: Path,
    preferences: Path | None = None,
    held_out: Sequence[Path] = (),
    seed: int = 0,
    corpus: Path | None = None,
) -> dict[str, int]:
    """Write the chosen rows to ``output`` (JSON lines); returns how many of each source, and how many were LEFT_OUT.

    Args:
        pairs: rows with ``raw_prompt``, ``enhanced_prompt`` and ``source``.
        output: file to write; rows of ``preferences`` carry their failed version as ``failed_prompts``.
        preferences: rows with ``success`` and ``failed`` in place of ``enhanced_prompt``.
        held_out: files that quality is measured on; a row that repeats one of their texts is left out.
        seed: of the order, and so of which rows are taken where there are too many.
        corpus: documents whose requests are added, each behind a hasty version of itself.
    """
    rows = _read(pairs)
    for row in _read(preferences) if preferences else []:
        if row["success"].split() != row["raw_prompt"].split():  # no rewrite to learn
            failed = [row["failed"]] if row.get("failed") else []
            rows.append({**row, "enhanced_prompt": row["success"], "failed_prompts": failed})
    rng = random.Random(seed)
    for request in read_requests(corpus) if corpus else ():
        if (raw := hasty(request, rng)) is not None:
            source = "corpus_code_request" if asks_for_code(request) else "corpus_request"
            rows.append({"raw_prompt": raw, "enhanced_prompt": request, "source": source})
    for raw, enhanced in everyday_pairs(2 * LIMITS[EVERYDAY], seed + 1):  # more than are taken: see below
        rows.append({"raw_prompt": raw, "enhanced_prompt": enhanced, "source": EVERYDAY})
    rng.shuffle(rows)
    known = HeldOut.read(held_out)
    taken: Counter[str] = Counter()
    with output.open("w", encoding="utf-8") as chosen:
        for row in rows:
            source = row["source"]
            too_long = len(row["enhanced_prompt"].split()) > MAX_WORDS.get(source, sys.maxsize)
            off_subject = is_off_subject(row["raw_prompt"], row["enhanced_prompt"])
            wants_code = asks_for_code(row["enhanced_prompt"]) and not asks_for_code(row["raw_prompt"])
            if taken[source] >= limit_of(source) or too_long or off_subject or (wants_code and source in SYNTHETIC):
                continue
            texts = (row["raw_prompt"], row["enhanced_prompt"], *row.get("failed_prompts", ()))
            if any(map(known.repeated_by, texts)):
                taken[LEFT_OUT] += 1
                continue
            taken[source] += 1
            kept = {name: row[name] for name in COLUMNS if name in row}
            chosen.write(json.dumps(kept, ensure_ascii=False) + "\n")
    return dict(taken)


def limit_of(source: str) -> int:
    """The most rows that are taken of a source."""
    return next((limit for pattern, limit in LIMITS.items() if fnmatchcase(source, pattern)), 0)


def _read(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [parse_json_line(line, path, number) for number, line in enumerate(file, start=1)]
