"""The research commands that can be tried on toy models in seconds."""

import json
import subprocess
import sys
from pathlib import Path

from tests.e2e.commands import ENVIRONMENT, ROOT


def research(module: str, *arguments: str, cache: Path) -> str:
    """Run ``python -m research.<module>`` and return the last line that it prints."""
    command = [sys.executable, "-m", f"research.{module}", *arguments]
    environment = {**ENVIRONMENT, "NEURO_LATENT_CACHE": str(cache)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_a_synthetic_pair_is_made_once_and_exported(tmp_path: Path) -> None:
    first = research("synthetic.shapes", "tiny", "--precision", "fp32", cache=tmp_path)
    made = (Path(first) / "manifest.json").stat().st_mtime_ns
    assert research("synthetic.shapes", "tiny", "--precision", "fp32", cache=tmp_path) == first
    assert (Path(first) / "manifest.json").stat().st_mtime_ns == made


def test_training_is_measured_beside_peft(tmp_path: Path) -> None:
    plots = str(tmp_path / "plots")
    line = research("baselines.training", "--shape", "tiny", "--quick", "--json", "--plot", plots, cache=tmp_path)
    result = json.loads(line)
    assert list(result["records_per_second"]) == ["adapter", "PEFT prompt tuning", "PEFT prompt tuning, our batches"]
    assert all(ratio > 0 for ratio in result["times_as_fast"].values())
    assert all(Path(path).stat().st_size > 10_000 for path in result["plots"])
