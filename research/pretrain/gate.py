"""Fit the embedded adapter's gate: ``python -m research.pretrain.gate --run RUN --data DIR --output ADAPTER``.

``neuro-latent train`` fits it on kinds that the adapter has not seen; the embedded generator has seen those all the
same, so here it is fitted once more, on the kinds of ``held_out.jsonl`` (``adapter_data.py``) that neither has.
"""

import argparse
import json
from pathlib import Path

import torch

from neuro_latent_trainer.card import model_card
from neuro_latent_trainer.config import TrainConfig
from neuro_latent_trainer.data import read_records
from neuro_latent_trainer.gate_fit import Grouped, fit_gate, groups_of
from neuro_latent_trainer.model import PromptOptimizer


def grouped(model: PromptOptimizer, path: Path, named: bool) -> Grouped:
    """The records of a file (those of a named kind only, if ``named``), embedded and grouped."""
    records = [record for record in read_records(path).records if record.kind or not named]
    prompts = [record.raw_prompt for record in records]
    vectors_NE = torch.cat([model.embed(prompts[at : at + 64]) for at in range(0, len(prompts), 64)])
    return Grouped(records, vectors_NE, groups_of(records, vectors_NE))


def main() -> None:
    """Read the options, fit, write the adapter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    model = PromptOptimizer.from_pretrained(options.run).eval()
    trained = grouped(model, options.data / "train.jsonl", named=False)
    unseen = grouped(model, options.data / "held_out.jsonl", named=True)
    config = TrainConfig.from_dict(model.trained["config"])
    model.trained["gate"] = fit_gate(model, trained, unseen, config.max_target_tokens)
    model.card = model_card(config, model.adapter.config, model.trained)
    model.save_pretrained(options.output)
    print(json.dumps(model.trained["gate"]))


if __name__ == "__main__":
    main()
