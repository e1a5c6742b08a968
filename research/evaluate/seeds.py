"""An adapter beside PEFT's prompt tuning with as many virtual tokens, steps and rows, over several seeds.

For each seed ``neuro-latent train`` trains an adapter, and prompt tuning learns from all rows of the file, those that
the run holds out among them; both are judged by the cross-entropy of held-out rows, by default those of the run::

    python -m research.evaluate.seeds --train FILE [--held-out FILE] --output DIR [--seeds 3] [-- OPTIONS OF TRAIN]

The last line of stdout is JSON: for each seed the cross-entropies in nats a token and the difference, with 95 %
intervals over rows.
"""

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

import torch

from neuro_latent_core.command_line import program
from neuro_latent_trainer.data import read_records
from neuro_latent_trainer.evaluation import statistics
from neuro_latent_trainer.evaluation.baselines import Baselines, Budget
from neuro_latent_trainer.evaluation.evaluate import chosen, targets, with_target
from neuro_latent_trainer.evaluation.systems import Conditioned, adapted, prompted
from neuro_latent_trainer.model import PromptOptimizer
from neuro_latent_trainer.settings import EvaluationConfig
from neuro_latent_trainer.sources import HELD_OUT_FILE


def judged(run: Path, train: Path, held_out: Path, rows: int) -> dict[str, Any]:
    """Cross-entropies of the adapter of a run and of prompt tuning on its rows."""
    model = PromptOptimizer.from_pretrained(run / "adapter")
    form, config = model.adapter.config.form, EvaluationConfig()
    learned = with_target(read_records(train).records, form)
    asked = chosen(read_records(held_out).records, form, rows)
    soft_PD = Baselines(run / "baselines", model.generator, learned, Budget.of(model)).prompt_tuning()
    raw, gold = [record.raw_prompt for record in asked], targets(asked, form)
    with torch.no_grad():
        ours, theirs = (
            Conditioned(model.generator, condition, config).losses(raw, gold)
            for condition in (adapted(model), prompted(model.generator, soft_PD))
        )
    return {
        "adapter": statistics.mean(ours.per_token, ours.tokens).as_json(),
        "prompt tuning": statistics.mean(theirs.per_token, theirs.tokens).as_json(),
        "difference": statistics.mean(theirs.per_token - ours.per_token, ours.tokens).as_json(),
    }


def main() -> None:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--train", "--output"):
        parser.add_argument(option, type=Path, required=True)
    parser.add_argument("--held-out", type=Path, help="rows to judge by; by default val.jsonl of each run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=300, help="the most held-out rows, chosen by a hash")
    parser.add_argument("options", nargs="*", help="of neuro-latent train")
    options = parser.parse_args()
    found = {}
    for seed in range(options.seeds):
        run = options.output / f"seed-{seed}"
        if not (run / "neuro_final_model.pt").is_file():
            command = [*program(), "train", "--data-path", str(options.train), "--output-dir", str(run)]
            subprocess.run([*command, "--seed", str(seed), *options.options], check=True)
        found[seed] = judged(run, options.train, options.held_out or run / HELD_OUT_FILE, options.rows)
        print(json.dumps({seed: found[seed]}), flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
