"""Fit the embedded adapter's gate on texts that were judged by readers.

``neuro-latent train`` fits a gate on kinds of request that the adapter has not seen, by the nearness of texts to
references. The embedded generator has seen those kinds all the same, so here it is fitted on pairs that neither has
seen, and on a reader's marks; and on held-out texts to which nothing should be added::

    python -m research.pretrain.gate sheet --run RUN --output FOLDER      # sheet.jsonl, to be marked, and key.jsonl
    python -m research.pretrain.gate fit --run RUN --data DIR --folder FOLDER --marks FILE --output DIR
"""

import argparse
import json
import random
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from neuro_latent_trainer.adapter_folder import WEIGHTS_FILE
from neuro_latent_trainer.card import model_card
from neuro_latent_trainer.data import read_records
from neuro_latent_trainer.embeddings import EmbeddingCache
from neuro_latent_trainer.gate_fit import Grouped, fit_weights, groups_of, make_gate, write_scored
from neuro_latent_trainer.model import PromptOptimizer
from neuro_latent_trainer.settings import TrainConfig
from neuro_latent_trainer.written import Part
from research.pretrain.rows import judged_pairs, texts_to_leave_alone

JUDGED_FOR_TEXTS = 110
"""The first of the held-out pairs are for judging what is served (research/evaluate/blind.py)."""
JUDGED_FOR_GATE = 270
SERVED = 0.67
"""Share of the judged texts that the threshold serves."""


def write_sheet(model: PromptOptimizer, folder: Path) -> None:
    """Texts for a reader to mark, whole and up to each sentence, in a random order; and their log-probabilities."""
    folder.mkdir(parents=True, exist_ok=True)
    prompts = [row.raw for row in judged_pairs()[JUDGED_FOR_TEXTS : JUDGED_FOR_TEXTS + JUDGED_FOR_GATE]]
    others = texts_to_leave_alone()[0]
    written = write_scored(model, [*prompts, *others], 96)
    rows = [
        {"prompt": prompt, "addition": part.text, "logprob": part.mean_logprob}
        for prompt, parts in zip([*prompts, *others], written, strict=True)
        for part in parts
        if part.text
    ]
    with (folder / "key.jsonl").open("w") as key:
        key.writelines(json.dumps({"id": number, **row}) + "\n" for number, row in enumerate(rows))
    shown = [
        {"id": number, "prompt": row["prompt"], "addition": row["addition"]}
        for number, row in enumerate(rows)
        if row["prompt"] in prompts
    ]
    random.Random(1).shuffle(shown)
    with (folder / "sheet.jsonl").open("w") as sheet:
        sheet.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in shown)


def fit(model: PromptOptimizer, run: Path, data: Path, folder: Path, marks: Path, output: Path) -> None:
    """Fit on the marks (``worse`` is not apt) and write the adapter, in float16."""
    records = read_records(data / "train.jsonl").records
    prompts = [record.raw_prompt for record in records]
    cache = EmbeddingCache(run / "embeddings", model.encoder.sha256, model.adapter.config.pooling, model.encoder.width)
    cache.fill(prompts, model.embed)
    vectors_NE = cache.get(prompts)
    gate = make_gate(model, Grouped(records, vectors_NE, groups_of(records, vectors_NE)))
    marked = {row["id"]: row["mark"] for row in map(json.loads, marks.read_text().splitlines())}
    written: dict[str, list[tuple[Part, bool]]] = {}
    others: dict[str, list[tuple[Part, bool]]] = {}
    alone = texts_to_leave_alone()[0]
    for row in map(json.loads, (folder / "key.jsonl").read_text().splitlines()):
        part = Part(row["addition"], row["logprob"])
        if row["prompt"] in alone:
            others.setdefault(row["prompt"], []).append((part, False))
        elif row["id"] in marked:
            written.setdefault(row["prompt"], []).append((part, marked[row["id"]] != "worse"))
    asked = [*written, *others]
    embeddings_NE = torch.cat([model.embed(asked[at : at + 64]) for at in range(0, len(asked), 64)])
    texts = [*written.values(), *others.values()]
    found = fit_weights(model, gate, embeddings_NE, texts, SERVED, len(others))
    labels = "a reader's marks: not worse than the prompt alone; and texts that ask for nothing"
    model.trained["gate"] = {"rows": len(asked), "labels": labels, **found}
    config = TrainConfig.from_dict(model.trained["config"])
    model.card = model_card(config, model.adapter.config, model.trained)
    model.save_pretrained(output)
    weights = output / WEIGHTS_FILE
    save_file({name: tensor.half().contiguous() for name, tensor in load_file(weights).items()}, weights)
    print(json.dumps(model.trained["gate"]))


def main() -> None:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("sheet", "fit"):
        command = commands.add_parser(name)
        command.add_argument("--run", type=Path, required=True)
        command.add_argument("--output", type=Path, required=True)
        if name == "fit":
            for option in ("--data", "--folder", "--marks"):
                command.add_argument(option, type=Path, required=True)
    options = parser.parse_args()
    model = PromptOptimizer.from_pretrained(options.run).eval()
    if options.command == "sheet":
        write_sheet(model, options.output)
    else:
        fit(model, options.run, options.data, options.folder, options.marks, options.output)


if __name__ == "__main__":
    main()
