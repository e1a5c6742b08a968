"""What tests of pictures share: a result to draw, and a check of what was drawn."""

from pathlib import Path

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
