"""``neuro-latent bench`` as a user runs it, on toy models: every part once, and one JSON line at the end."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COMMAND = str(Path(sys.executable).parent / "neuro-latent")


def bench(cache: Path, *arguments: str) -> dict[str, Any]:
    """Run it and return the JSON line."""
    environment = os.environ | {"NEURO_LATENT_CACHE": str(cache)}
    done = subprocess.run(
        [COMMAND, "bench", *arguments, "--quick", "--json", "--plot", str(cache / "plots")],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    result: dict[str, Any] = json.loads(line)
    assert result["benchmark"] == arguments[0]
    assert result["hardware"]["cores"] >= 1
    assert all(Path(path).stat().st_size > 10_000 for path in result["plots"])
    return result


def test_decode_measures_every_combination(tmp_path: Path) -> None:
    result = bench(tmp_path, "decode", "--shape", "tiny")
    assert len(result["cells"]) == 2 * 2 * 1 * 2
    for cell in result["cells"]:
        assert cell["token_ms"]["median"] > 0
        assert cell["tokens_per_second"]["median"] > 0
        assert cell["tokens_per_step"] >= 1 if cell["speculation"] else cell["tokens_per_step"] == 1
    assert result["first_token_ms"]["44"]["median"] > 0


@pytest.mark.triton
def test_serve_loads_a_real_triton(repository: Path, tmp_path: Path) -> None:
    result = bench(tmp_path, "serve", "--repository", str(repository))
    assert [point["clients"] for point in result["closed_loop"]] == [1, 4]
    for point in [*result["closed_loop"], *result["open_loop"]]:
        assert point["errors"] == 0
        assert point["requests"] > 0
        assert point["latency_ms"]["p50"] <= point["latency_ms"]["p99"]
    assert result["triton_adds"]["in_one_process_ms"]["median"] > 0
    assert result["first_requests"]["first_over_tenth"] > 0


@pytest.mark.triton
def test_perf_analyzer_loads_both_ensembles(repository: Path) -> None:
    done = subprocess.run(
        [COMMAND, "bench", "perf-analyzer", "--repository", str(repository), "--quick", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    if "perf_analyzer cannot be had" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    points = json.loads(done.stdout)["points"]
    assert [(point["model"], point["clients"]) for point in points] == [
        (model, clients) for model in ("neuro_latent_optimizer", "neuro_latent_optimizer_stream") for clients in (1, 2)
    ]
    for point in points:
        assert point["requests"] >= 5
        assert 0 < point["first_response_ms"]["p50"] <= point["latency_ms"]["p50"]
    assert points[-1]["first_response_ms"]["p50"] < points[-1]["latency_ms"]["p50"]


def test_training_is_measured_beside_peft(tmp_path: Path) -> None:
    result = bench(tmp_path, "training", "--shape", "tiny")
    assert list(result["records_per_second"]) == ["adapter", "PEFT prompt tuning", "PEFT prompt tuning, our batches"]
    assert all(ratio > 0 for ratio in result["times_as_fast"].values())
