"""An export that takes its graphs from one that is already made."""

from pathlib import Path

import pytest
import torch

from tests.exports import copy_traced

torch.set_num_threads(1)


@pytest.fixture
def traced(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports copy the graphs of the shared one."""
    copy_traced(monkeypatch, repository)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder and what is in it."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
