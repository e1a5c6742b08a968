"""The ablation: one change at a time, resumable."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from neuro_latent_trainer.sample import sample_rows
from neuro_latent_trainer.settings import TrainConfig
from research.evaluate import ablation

app = typer.Typer()
app.command()(ablation.ablate)


@pytest.fixture
def small_default(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variants, of the tiny pair."""
    backbones = {"encoder": str(pair.encoder), "generator": str(pair.generator)}
    monkeypatch.setattr(ablation, "TrainConfig", lambda **given: TrainConfig(**given, **backbones, batch_size=8))


def test_every_variant_is_a_valid_change_of_the_default() -> None:
    default = TrainConfig()
    for name, change in ablation.VARIANTS.items():
        assert (change(default) == default) == (name == ablation.DEFAULT), name


def ablate(data: Path, folder: Path, *options: Any) -> tuple[list[dict[str, Any]], str]:
    arguments = ["--data-path", data, "--val-path", data, "--output-dir", folder, "--records", 16, "--rows", 8]
    shorter = ["--phase1-epochs", 1, "--phase2-epochs", 1, "--json"]
    done = CliRunner().invoke(app, [str(a) for a in [*arguments, *shorter, *options]])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_an_ablation_goes_on_where_it_stopped(small_default: None, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in sample_rows()[:24]))
    only = ["--only", "default", "--only", "no cross-entropy", "--default-seeds", 2]
    found, told = ablate(data, tmp_path / "out", *only)
    assert [(r["variant"], r["seed"]) for r in found] == [("default", 0), ("default", 1), ("no cross-entropy", 0)]
    assert all(result["steps"] == 4 for result in found)
    assert "±" in told
    again, told = ablate(data, tmp_path / "out", *only, "--only", "dense projector")
    assert again[:3] == found
    assert "dense projector, seed 0" in told
    assert "default, seed 0" not in told


def test_an_unknown_variant_names_those_there_are(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("{}")
    arguments = ["--data-path", data, "--val-path", data, "--output-dir", tmp_path, "--only", "nothing"]
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 2
    assert "dense projector" in done.stderr
