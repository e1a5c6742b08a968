"""Inputs that failed once, for tests beside the project's own; not part of the repository."""

from pathlib import Path

import pytest

CASES = Path(__file__).parents[2] / "shared" / "data" / "cases"


def case(name: str) -> Path:
    """A file of them; the test is skipped where it is missing."""
    if not (CASES / name).exists():
        pytest.skip(f"{CASES / name} is missing")
    return CASES / name
