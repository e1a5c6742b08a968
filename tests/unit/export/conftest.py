"""An export that takes its graphs from one that is already made, for what has nothing to do with tracing."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from neuro_latent_export import parity
from neuro_latent_export import repository as repository_module

torch.set_num_threads(1)


@pytest.fixture
def traced(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``write_graph`` copies the graph of the shared export, and the generation is compared on few prompts."""

    def copy(spec: Any, path: Path, log: Callable[[str], None] = lambda text: None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(repository / spec.path, path)

    monkeypatch.setattr(repository_module, "write_graph", copy)
    monkeypatch.setattr(parity, "PROMPTS", 12)
    monkeypatch.setattr(parity, "MAX_LENGTH", 12)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder and what is in it."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
