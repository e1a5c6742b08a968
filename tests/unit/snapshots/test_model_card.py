"""The model cards and ``adapter_config.json``, as a training run writes them."""

import re
from pathlib import Path
from typing import Any

from neuro_latent_trainer.card import model_card
from tests.unit.snapshots.conftest import Compare
from tests.unit.trainer.conftest import run_maker, sample_records

CURVE = [{"threshold": 0.5, "served": 0.61, "apt": 0.9}, {"threshold": 0.0, "served": 1.0, "apt": 0.7}]


def test_the_card_and_the_configuration_of_an_adapter(compare: Compare, pair: Any, tmp_path: Path) -> None:
    few = {"train": sample_records(0, 8), "validation": sample_records(8, 12)}
    run = run_maker(pair, tmp_path)(**few, phase1_epochs=1, phase2_epochs=0)
    run.execute()
    folder, rewrite = run.output_dir / "adapter", run.model.adapter.config.replace(form="rewrite")
    made = {
        "complement.md": (folder / "README.md").read_text(encoding="utf-8"),
        "rewrite-with-gate.md": model_card(run.config, rewrite, {**run.model.trained, "gate": {"curve": CURVE}}),
        "adapter_config.json": (folder / "adapter_config.json").read_text(encoding="utf-8"),
    }
    compare({name: steady(text, pair) for name, text in made.items()})


def steady(text: str, pair: Any) -> str:
    """``text`` without folders, hashes and measured losses, which differ from machine to machine."""
    text = text.replace(str(pair.encoder.parent), "PAIR")
    return re.sub(r"\d+\.\d{4,}", "0.0", re.sub(r"\b[0-9a-f]{64}\b", "SHA256", text))
