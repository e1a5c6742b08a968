"""What a newcomer runs first: the demonstration, on the embedded pair as it is in the repository."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from neuro_latent_trainer.model import PromptOptimizer

ROOT = Path(__file__).parents[2]
PAIR = ROOT / "models" / "neuro-latent-mini"


def test_the_embedded_pair_is_small_and_writes_about_the_prompt() -> None:
    assert sum(path.stat().st_size for path in PAIR.rglob("*") if path.is_file()) <= 45_000_000
    model = PromptOptimizer.from_pretrained(PAIR / "adapter")
    prompts = ["Create a function", "Tell me about cryptocurrency.", "write a poem about the sea"]
    for word, text in zip(("function", "cryptocurrency", "poem"), model.generate(prompts, 48), strict=True):
        assert word in text.lower()


@pytest.mark.server
def test_the_demo_improves_prompts_over_both_transports_and_ends_with_one_json_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "neuro_latent_benchmarks.demo"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["server"]["name"] == "triton"
    by_transport: dict[str, dict[str, str]] = {}
    for result in summary["results"]:
        assert result["ms"] > 0
        by_transport.setdefault(result["transport"], {})[result["raw_prompt"]] = result["enhanced_prompt"]
    assert set(by_transport) == {"grpc-stream", "http"}
    assert by_transport["grpc-stream"] == by_transport["http"]
    assert len(by_transport["http"]) >= 5
    unserved = {r["raw_prompt"] for r in summary["results"] if r["finish_reason"] in ("unchanged", "withheld")}
    # The embedded generator is small, and adding nothing is an answer; but a demonstration shows additions.
    assert len(unserved) <= 6
    for raw, text in by_transport["http"].items():
        assert text.strip()
        assert (text == raw) == (raw in unserved)
