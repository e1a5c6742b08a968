"""Tiny random models that all tests share; torch is imported only where one of them is asked for."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from neuro_latent_trainer.model import PromptOptimizer

# Read when huggingface_hub and onnxruntime are imported, which no conftest and no test does before this line.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

settings.register_profile("unit", deadline=None)  # machines differ too much for a limit on one example
settings.load_profile("unit")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs the tiny models is slow: each test process makes them, and exports them."""
    for item in items:
        if {"pair", "gated_pair"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("slow")


@dataclass(frozen=True)
class Pair:
    """Folders of a tiny encoder and a tiny T5 in hub format."""

    encoder: Path
    generator: Path


def _pair(folder: Path, gated: bool = False) -> Pair:
    import torch

    from tests import tiny

    torch.set_num_threads(1)
    return Pair(*tiny.write_backbones(folder, gated))


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A RoBERTa and a T5 with ReLU and tied embeddings."""
    return _pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="session")
def gated_pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A RoBERTa and a T5 of the newer kind (v1.1, flan): gated GELU, an LM head of its own."""
    return _pair(tmp_path_factory.mktemp("gated"), gated=True)


@pytest.fixture(scope="session")
def adapter(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random adapter for ``pair``."""
    from tests import tiny

    return tiny.write_adapter(tmp_path_factory.mktemp("adapter"), pair.encoder, pair.generator)


@pytest.fixture(scope="session")
def optimizer(adapter: Path) -> "PromptOptimizer":
    """The torch model of ``adapter``; nobody may change it."""
    from neuro_latent_trainer.model import PromptOptimizer

    return PromptOptimizer.from_pretrained(adapter)


@pytest.fixture(scope="session")
def repository(adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported model repository of ``adapter``, made once (tens of seconds); nobody may change it."""
    from neuro_latent_export.repository import export_repository

    output = tmp_path_factory.mktemp("exported") / "repository"
    export_repository(adapter, output)
    return output


@pytest.fixture(scope="session")
def plain_repository(gated_pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported model repository of the T5 of ``gated_pair`` alone; nobody may change it."""
    from neuro_latent_export.repository import export_repository
    from tests import tiny

    output = tmp_path_factory.mktemp("plain") / "repository"
    export_repository(None, output, generator=str(gated_pair.generator), prefix=tiny.PREFIX)
    return output


@pytest.fixture(scope="session")
def onnxruntime_repository(adapter: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for Triton's onnxruntime backend, with the graphs of ``repository``; nobody may change it."""
    from neuro_latent_export.repository import export_repository
    from tests.exports import copy_traced

    output = tmp_path_factory.mktemp("exported") / "onnxruntime"
    with pytest.MonkeyPatch.context() as monkeypatch:
        copy_traced(monkeypatch, repository)
        export_repository(adapter, output, backend="onnxruntime")
    return output


@pytest.fixture(scope="session")
def tensorrt_repository(adapter: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for TensorRT, built by TensorRT-RTX for an L4 that need not be there; nobody may change it."""
    from neuro_latent_export.repository import export_repository
    from tests.exports import copy_traced

    pytest.importorskip("tensorrt_rtx_bindings", reason="the wheels of TensorRT-RTX are not installed")
    output = tmp_path_factory.mktemp("exported") / "tensorrt"
    with pytest.MonkeyPatch.context() as monkeypatch:
        copy_traced(monkeypatch, repository)
        export_repository(adapter, output, backend="tensorrt", tensorrt_rtx="8.9")
    return output
