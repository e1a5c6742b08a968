"""``neuro-latent bench`` as a user runs it, on toy models: every part once, and one JSON line at the end."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.commands import COMMAND, served


def bench(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run it and return the JSON line."""
    command = [COMMAND, "bench", *arguments, "--quick", "--json", "--plot", str(folder / "plots")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    result: dict[str, Any] = json.loads(line)
    assert result["benchmark"] == arguments[0]
    assert result["hardware"]["cores"] >= 1
    assert all(Path(path).stat().st_size > 10_000 for path in result["plots"])
    return result


def test_decode_measures_every_combination(repository: Path, tmp_path: Path) -> None:
    result = bench(tmp_path, "decode", "--repository", str(repository))
    assert len(result["cells"]) == 2 * 2 * 1 * 2
    for cell in result["cells"]:
        assert cell["token_ms"]["median"] > 0
        assert cell["tokens_per_second"]["median"] > 0
        assert cell["tokens_per_step"] >= 1 if cell["speculation"] else cell["tokens_per_step"] == 1
    assert result["first_token_ms"]["44"]["median"] > 0


@pytest.mark.server
def test_serve_loads_a_real_triton(repository: Path, tmp_path: Path) -> None:
    result = bench(tmp_path, "serve", "--repository", str(repository))
    assert [point["clients"] for point in result["closed_loop"]] == [1, 4]
    for point in [*result["closed_loop"], *result["open_loop"]]:
        assert point["errors"] == 0
        assert point["requests"] > 0
        assert point["latency_ms"]["p50"] <= point["latency_ms"]["p99"]
    assert result["zipf"]["same_answers"]
    assert result["triton_adds"]["in_one_process_ms"]["median"] > 0
    assert result["first_requests"]["first_over_tenth"] > 0


@pytest.mark.server
def test_serve_loads_a_server_that_runs(repository: Path, tmp_path: Path) -> None:
    with served("--repository", str(repository), cwd=tmp_path) as server:
        result = bench(tmp_path, "serve", "--url", str(server["grpc"]))
    assert [point["clients"] for point in result["closed_loop"]] == [1, 4]
    assert all(point["errors"] == 0 for point in [*result["closed_loop"], *result["open_loop"]])
