"""What a bare ``pip install`` of one folder would bring; asks the package index, installs nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


def would_install(folder: str) -> set[str]:
    """Names of all distributions that pip would install into an empty environment."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    command += ["--constraint", str(ROOT / "constraints.txt"), str(ROOT / folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return {item["metadata"]["name"].lower() for item in json.loads(done.stdout)["install"]}


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("client", {"torch", "transformers", "onnxruntime", "onnx", "nvidia-pytriton", "numpy", "tritonclient"}),
        ("serving", {"torch", "transformers", "onnx"}),
        ("benchmarks", {"torch", "transformers", "onnx"}),
    ],
)
def test_a_distribution_does_not_bring_what_it_must_not(folder: str, forbidden: set[str]) -> None:
    names = would_install(folder)
    assert f"neuro-latent-{folder}" in names
    assert not names & forbidden
