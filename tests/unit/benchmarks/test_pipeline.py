"""A repository in one process: with the adapters that a server would serve."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from neuro_latent_benchmarks.pipeline import Pipeline
from neuro_latent_serving.adapters.adapter_store import AdapterStore


@pytest.fixture
def changed(repository: Path, tmp_path: Path) -> Path:
    return shutil.copytree(repository, tmp_path / "repository")


def replace_default(store: AdapterStore, exported: Path) -> None:
    store.add("default", exported)


def add_another(store: AdapterStore, exported: Path) -> None:
    store.add("team", exported)


def roll_back(store: AdapterStore, exported: Path) -> None:
    store.add("default", exported)
    store.rollback()


def change_until_version_1_is_gone(store: AdapterStore, exported: Path) -> None:
    while 1 in store.numbers():
        store.add("team", exported)


@pytest.mark.parametrize("change", [replace_default, add_another, roll_back, change_until_version_1_is_gone])
def test_a_repository_whose_adapters_were_changed(
    changed: Path, repository: Path, change: Callable[[AdapterStore, Path], None]
) -> None:
    change(AdapterStore(changed), repository / "projector" / "1" / "adapters" / "default")
    with Pipeline(changed, threads=1) as pipeline:
        assert pipeline.answer("sort a list", 4).tokens <= 4


def test_the_newest_adapter_is_taken(changed: Path, repository: Path) -> None:
    store = AdapterStore(changed)
    store.add("default", repository / "projector" / "1" / "adapters" / "default")
    (changed / "projector" / "1" / "adapters" / "default" / "model.onnx").write_bytes(b"not a graph")
    with Pipeline(changed, threads=1) as pipeline:
        pipeline.encode("sort a list")


def test_a_repository_of_tritons_own_backend(onnxruntime_repository: Path) -> None:
    with Pipeline(onnxruntime_repository, threads=1) as pipeline:
        pipeline.encode("sort a list")
