"""The whole path by its commands: train -> serve --run (which exports) -> optimize, on the tiny pair."""

import json
import subprocess
from pathlib import Path

import pytest

from neuro_latent_trainer.model import PromptOptimizer
from tests import tiny
from tests.e2e.commands import COMMAND, ENVIRONMENT, served

pytestmark = pytest.mark.server


def run(*arguments: str) -> str:
    """Run ``neuro-latent`` and return its stdout."""
    done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_trained_run_is_exported_served_and_answers_as_torch_does(tmp_path: Path) -> None:
    encoder, generator = tiny.write_backbones(tmp_path / "pair")
    data, run_dir = tmp_path / "sample.jsonl", tmp_path / "run"
    run("train", "--create-sample", "--data-path", str(data))
    trained = json.loads(
        run(
            *("train", "--data-path", str(data), "--output-dir", str(run_dir), "--json"),
            *("--encoder", str(encoder), "--generator", str(generator)),
            *("--phase1-epochs", "2", "--phase2-epochs", "4", "--batch-size", "8", "--learning-rate", "0.003"),
        ).splitlines()[-1]
    )
    assert trained["validation_loss_end"] < trained["validation_loss_start"]

    prompt = "Create a function"
    torch_text = PromptOptimizer.from_pretrained(run_dir).generate([prompt], 24)[0]
    with served("--run", str(run_dir), "--no-guard") as server:
        for url in (server["grpc"], server["http"]):
            answer = json.loads(run("optimize", prompt, "--url", str(url), "--max-length", "24", "--json"))
            # The raw prompt is returned when the model wrote nothing.
            assert answer["sequences"][0]["text"] == (torch_text if torch_text.strip() else prompt)

    manifest = json.loads((run_dir / "repository" / "manifest.json").read_text())
    assert manifest["parity"]["generation"]["identical"] == manifest["parity"]["generation"]["prompts"] >= 50

    made = (run_dir / "repository" / "manifest.json").stat().st_mtime_ns
    with served("--run", str(run_dir)):
        assert (run_dir / "repository" / "manifest.json").stat().st_mtime_ns == made, "exported again without need"


PAIRS = Path(__file__).parents[2].parent / "shared" / "data" / "prompt_pairs" / "train.jsonl"


@pytest.mark.skipif(not PAIRS.is_file(), reason=f"the prompt pairs are not here ({PAIRS})")
def test_the_embedded_pair_trains_on_mapped_columns_and_its_export_serves(tmp_path: Path) -> None:
    """The commands of the first issue, on the first rows of the shared prompt pairs."""
    data, run_dir, repository = tmp_path / "pairs.jsonl", tmp_path / "run", tmp_path / "repository"
    with PAIRS.open(encoding="utf-8") as rows:
        data.write_text("".join(next(rows) for _ in range(192)), encoding="utf-8")
    trained = json.loads(
        run(
            *("train", "--data-path", str(data), "--columns", "raw=raw_prompt,enhanced=enhanced_prompt"),
            *("--phase1-epochs", "1", "--phase2-epochs", "1", "--output-dir", str(run_dir), "--json"),
        ).splitlines()[-1]
    )
    assert trained["validation_loss_end"] < trained["validation_loss_start"]
    run("export", "--adapter", str(run_dir), "--output", str(repository))
    with served("--repository", str(repository)) as server:
        answer = json.loads(run("optimize", "Create a function", "--url", str(server["grpc"]), "--json"))
    assert answer["sequences"][0]["text"].strip()
