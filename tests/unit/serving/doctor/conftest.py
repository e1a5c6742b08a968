"""Copies of the exported tiny repository that a test may spoil."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def spoilt(repository: Path, tmp_path: Path) -> Path:
    """A copy of the exported repository."""
    return Path(shutil.copytree(repository, tmp_path / "repository"))
