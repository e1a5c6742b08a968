"""Every result can be drawn."""

from pathlib import Path
from typing import Any

from neuro_latent_benchmarks import plots

HEAD = {
    "hardware": {"cpu": "a processor", "cores": 2},
    "settings": {"shape": "tiny", "precision": "fp32", "clients": 16},
}


def spread(value: float) -> dict[str, float]:
    return {"median": value, "p10": value * 0.9, "p90": value * 1.2, "n": 3}


def check(paths: list[Path]) -> None:
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 10_000


def test_decode(tmp_path: Path) -> None:
    cells = [
        {
            "speculation": on,
            "rows": rows,
            "input_tokens": 44,
            "new_tokens": tokens,
            "token_ms": spread(2.0 + rows / 8),
            "tokens_per_second": spread(400.0 * rows),
        }
        for on in (True, False)
        for rows in (1, 2, 4)
        for tokens in (16, 64)
    ]
    check(plots.decode(HEAD | {"cells": cells}, tmp_path / "new"))


def test_serve(tmp_path: Path) -> None:
    def point(**more: Any) -> dict[str, Any]:
        times = {"p50": 100.0, "p95": 150.0, "p99": 200.0}
        return {"tokens_per_second": 500.0, "latency_ms": times, "first_piece_ms": times, **more}

    closed = [point(clients=1), point(clients=4), {"clients": 8, "tokens_per_second": 0.0, "errors": 9}]
    opened = [point(share_of_capacity=0.5, rate=3.0)]
    check(plots.serve(HEAD | {"closed_loop": closed, "open_loop": opened}, tmp_path))
