"""Several processes take the steps of one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from neuro_latent_trainer.sample import sample_rows

pytestmark = pytest.mark.slow

SCRIPTS = Path(sys.executable).parent
TWO = [SCRIPTS / "accelerate", "launch", "--cpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no"]
RATE = 1e-5


def train(launcher: list[Any], pair: Any, data: Path, run: Path, *options: Any) -> subprocess.CompletedProcess[str]:
    # A low rate, because AdamW makes whole steps of gradients that are nearly 0: rounding would grow from step to step.
    settings = ["--phase1-epochs", 2, "--phase2-epochs", 1, "--batch-size", 5, "--learning-rate", RATE]
    settings += ["--base-learning-rate", RATE]
    command = [SCRIPTS / "neuro-latent", "train", "--data-path", data, "--output-dir", run, "--device", "cpu"]
    backbones = ["--encoder", pair.encoder, "--generator", pair.generator]
    arguments = [*launcher, *command, *backbones, *settings, *options, "--json"]
    return subprocess.run([str(a) for a in arguments], capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in sample_rows()[:48]))
    return path


def test_two_processes_train_what_one_does(pair: Any, data: Path, tmp_path: Path) -> None:
    runs = {"one": [], "two": [*TWO, "--dynamo_backend=no"]}
    summaries = {}
    for name, launcher in runs.items():
        done = train(launcher, pair, data, tmp_path / name)
        assert done.returncode == 0, done.stderr
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
        summaries[name] = json.loads(line)
    assert summaries["one"]["steps"] == summaries["two"]["steps"]
    logs = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in runs]
    assert len(logs[0]) == len(logs[1])  # only the first process writes
    for left, right in zip(*(map(json.loads, log) for log in logs), strict=True):
        assert right.pop("kind") == left.pop("kind")
        assert right == pytest.approx(left, rel=1e-4, abs=1e-6)
    one, two = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in runs)
    apart = torch.cat([(two[name] - value).flatten() for name, value in one.items()]).abs()
    assert apart.median() < RATE / 100
    assert apart.quantile(0.99) < RATE


def test_an_error_in_two_processes_is_told_once(pair: Any, data: Path, tmp_path: Path) -> None:
    done = train([*TWO, "--dynamo_backend=no"], pair, data, tmp_path / "run", "--batch-size", 0)
    assert done.returncode != 0
    assert done.stderr.count("batch_size must be at least 1") <= 2  # each process checks its options
    assert not (tmp_path / "run").exists()
