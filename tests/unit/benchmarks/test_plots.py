"""Every result can be drawn."""

from pathlib import Path
from typing import Any

from neuro_latent_benchmarks import plots
from tests.pictures import HEAD, check, spread


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
