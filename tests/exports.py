"""Exports that take their graphs from one that is already made, for what has nothing to do with tracing."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuro_latent_export import graph_files, parity
from neuro_latent_export import repository as repository_module


def copy_traced(monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    """``write_graph`` copies the graphs of ``repository``, and the generation is compared on few prompts."""

    def copy(spec: Any, path: Path, log: Callable[[str], None] = lambda text: None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(repository / spec.path, path)

    for module in (graph_files, repository_module):
        monkeypatch.setattr(module, "write_graph", copy)
    monkeypatch.setattr(parity, "PROMPTS", 12)
    monkeypatch.setattr(parity, "MAX_LENGTH", 12)
