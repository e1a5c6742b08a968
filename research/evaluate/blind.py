"""Blind judging of complements: make a sheet, and count what the judges wrote.

``python -m research.evaluate.blind sheet --adapter DIR --output FOLDER`` writes ``sheet.jsonl`` (``id``, ``prompt``,
``addition``; systems mixed and not named) and ``key.jsonl``. A judge adds ``mark`` (``better``, ``same`` or ``worse``
than the prompt alone) and ``intent`` (true where the request is still the same one) to each line.
``python -m research.evaluate.blind count --folder FOLDER marks-1.jsonl marks-2.jsonl`` prints shares by system with the
gate on and off, and how often two judges agree.

Prompts: held-out pairs of the teacher, the first by a hash. Systems: the adapter, the nearest kind's own sentences (the
nearest of the grammar's kinds by the embedded encoder), one constant sentence, and the teacher's own complement.
"""

import argparse
import json
import random
from collections import Counter
from pathlib import Path

import torch
from torch.nn import functional as F

from neuro_latent_core.guard.language import is_english
from neuro_latent_trainer.evaluation.rivals import CONSTANT_TEXT
from neuro_latent_trainer.gate_fit import write_scored
from neuro_latent_trainer.model import PromptOptimizer
from neuro_latent_trainer.written import served
from research.pretrain.grammar import kinds
from research.pretrain.rows import details_of, judged_pairs, trained_kinds


@torch.no_grad()
def adapter_texts(model: PromptOptimizer, prompts: list[str]) -> tuple[list[str], list[str]]:
    """What the adapter adds to each prompt, as the server serves it and with gate and guard off; "" for nothing."""
    written = write_scored(model, prompts, 96)
    embedded = torch.cat([model.embed(prompts[at : at + 64]) for at in range(0, len(prompts), 64)])
    answers = [
        served(model.adapter, embedding, raw, parts)[0] if is_english(raw) and parts[0].text else ""
        for raw, parts, embedding in zip(prompts, written, embedded, strict=True)
    ]
    return answers, [parts[0].text for parts in written]


def nearest_kind(model: PromptOptimizer, prompts: list[str]) -> list[str]:
    """Sentences of the kind whose example requests are nearest to each prompt."""
    rng, examples, owner = random.Random(8), [], []
    for index in trained_kinds():
        kind = kinds()[index]
        for form in kind.forms[:6]:
            examples.append(kind.request(rng, form))
            owner.append(index)
    known, asked = (
        F.normalize(torch.cat([model.embed(texts[at : at + 64]) for at in range(0, len(texts), 64)]), dim=-1)
        for texts in (examples, prompts)
    )
    return [" ".join(details_of(kinds()[owner[i]], rng, 2)) for i in (asked @ known.T).argmax(1).tolist()]


def write_sheet(adapter: str, output: Path, count: int) -> None:
    """Write the sheet and its key."""
    model = PromptOptimizer.from_pretrained(adapter).eval()
    rows = judged_pairs()[:count]
    prompts = [row.raw for row in rows]
    answers, written = adapter_texts(model, prompts)
    systems = {
        "adapter, as served": answers,
        "adapter, gate off": written,
        "nearest kind": nearest_kind(model, prompts),
        "constant": [CONSTANT_TEXT] * count,
        "teacher": [row.complement for row in rows],
    }
    pairs = [pair for texts in systems.values() for pair in zip(prompts, texts, strict=True)]
    asked = list(dict.fromkeys((raw, text) for raw, text in pairs if text))
    random.Random(1).shuffle(asked)
    ids = {pair: number for number, pair in enumerate(asked)}
    output.mkdir(parents=True, exist_ok=True)
    with (output / "sheet.jsonl").open("w") as sheet:
        for (raw, text), number in ids.items():
            sheet.write(json.dumps({"id": number, "prompt": raw, "addition": text}, ensure_ascii=False) + "\n")
    with (output / "key.jsonl").open("w") as key:
        for system, texts in systems.items():
            for raw, text in zip(prompts, texts, strict=True):
                # Nothing added is the same, and need not be asked.
                key.write(json.dumps({"system": system, "prompt": raw, "id": ids.get((raw, text))}) + "\n")


def count(folder: Path, files: list[Path]) -> None:
    """Print shares of better, same and worse by system and judge, and the judges' agreement."""
    key = [json.loads(line) for line in (folder / "key.jsonl").read_text().splitlines()]
    judges = [{row["id"]: row for row in map(json.loads, file.read_text().splitlines())} for file in files]
    for name, marks in zip(files, judges, strict=True):
        tallies: dict[str, Counter[str]] = {}
        for row in key:
            mark = "same" if row["id"] is None else marks[row["id"]]["mark"]
            tallies.setdefault(row["system"], Counter())[mark] += 1
            if row["system"] == "adapter, as served" and row["id"] is not None:
                tallies.setdefault("what is served alone", Counter())[mark] += 1
        own = [row["id"] for row in key if row["id"] is not None and row["system"].startswith("adapter")]
        kept = [marks[i].get("intent", True) for i in own]
        shares = {s: {m: round(100 * t[m] / t.total(), 1) for m in ("better", "same", "worse")} | {"n": t.total()}
                  for s, t in tallies.items()}  # fmt: skip
        print(
            json.dumps({"judge": name.name, "intent_kept": round(100 * sum(kept) / len(kept), 1), **shares}, indent=1)
        )
    if len(judges) > 1:
        both = [i for i in judges[0] if i in judges[1]]
        same = sum(judges[0][i]["mark"] == judges[1][i]["mark"] for i in both)
        print(json.dumps({"agreement": round(100 * same / len(both), 1), "judged": len(both)}))


def main() -> None:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    sheet = commands.add_parser("sheet")
    sheet.add_argument("--adapter", required=True)
    sheet.add_argument("--output", type=Path, required=True)
    sheet.add_argument("--prompts", type=int, default=110)
    counting = commands.add_parser("count")
    counting.add_argument("--folder", type=Path, required=True)
    counting.add_argument("marks", type=Path, nargs="+")
    options = parser.parse_args()
    if options.command == "sheet":
        write_sheet(options.adapter, options.output, options.prompts)
    else:
        count(options.folder, options.marks)


if __name__ == "__main__":
    main()
