"""Repositories of the backend tensorrt: their files, what is refused, and what is said where TensorRT is missing."""

import ctypes
import hashlib
import json
import sys
import types
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from neuro_latent_export.agreement import read_check_data
from neuro_latent_export.backends import GRAPH_MODELS
from neuro_latent_export.decoder_graphs import build_step
from neuro_latent_export.errors import ExportError
from neuro_latent_export.precision import BF16, FP32, MIN_ROWS, PRECISIONS
from neuro_latent_export.repository import export_repository
from neuro_latent_export.tensorrt.engines import build_engine
from neuro_latent_export.tensorrt.library import (
    CAPABILITY_MAJOR,
    TensorRTError,
    gpu_capability,
    open_tensorrt,
    open_tensorrt_rtx,
)
from neuro_latent_trainer.model import PromptOptimizer
from tests.unit.export.test_agreement import lenient

pytestmark = pytest.mark.slow

rtx = pytest.mark.skipif("not __import__('importlib').util.find_spec('tensorrt_rtx_bindings')")


@rtx
def test_a_repository_has_engines_one_adapter_and_no_graphs(adapter: Path, traced: None, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    manifest = export_repository(
        adapter,
        repository,
        backend="tensorrt",
        tensorrt_rtx="12.0",
        precision=lenient(BF16),
        check_data=read_check_data(rows=MIN_ROWS),
    )
    assert (manifest["backend"], manifest["device"]) == ("tensorrt", "gpu")
    assert (manifest["precision"], manifest["agreement"]["rows"]) == ("bf16", MIN_ROWS)
    assert manifest["tensorrt"]["compute_capability"] == "12.0"
    for model in GRAPH_MODELS:
        files = {path.name for path in (repository / model / "1").rglob("*")}
        assert files == {"model.plan"} | ({"adapter.json"} if model == "projector" else set())
    assert {path.suffix for path in (repository / "t5_decoder" / "1").iterdir()} == {".plan", ".json", ".py"}
    assert not [path for path in repository.iterdir() if path.name.startswith(".")]
    made = {str(path.relative_to(repository)) for path in repository.rglob("*") if path.suffix in (".plan", ".json")}
    assert set(manifest["artifacts"]) == made - {"manifest.json"}
    plan = (repository / "projector" / "1" / "model.plan").read_bytes()
    record = json.loads((repository / "projector" / "1" / "adapter.json").read_text())
    assert record["graph"] == {"sha256": hashlib.sha256(plan).hexdigest(), "bytes": len(plan)}
    step = manifest["tensorrt"]["engines"]["t5_decoder/1/step.plan"]
    assert step["inputs"]["past_key_values.0.decoder.key"]["dtype"] == "bf16"
    assert step["outputs"]["logprobs"]["dtype"] == "float"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"precision": PRECISIONS["int8"]}, "take fp32, fp16, bf16"),
        ({"device": "cpu"}, "TensorRT has engines for GPUs alone; take --device gpu"),
    ],
)
def test_what_an_engine_cannot_be_is_refused_before_anything_is_loaded(
    tmp_path: Path, wrong: dict[str, Any], words: str
) -> None:
    with pytest.raises(ExportError, match=words):
        export_repository(tmp_path / "nowhere", tmp_path / "repository", backend="tensorrt", **wrong)


def without_package(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    return r"TensorRT, .* loaded \(.*tensorrt.*\): pip install 'neuro-latent-export\[tensorrt\]' .* with the GPU"


def of_an_old_version(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(sys.modules, "tensorrt", types.SimpleNamespace(__version__="10.3.0"))
    return r"needs TensorRT 10\.15 or newer, .* not 10\.3\.0"


def without_driver(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(sys.modules, "tensorrt", types.SimpleNamespace(__version__="11", IKVCacheUpdateLayer=None))

    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    return r"on the GPU that they are for, and this machine has no NVIDIA driver .*--tensorrt-rtx"


@pytest.mark.parametrize("lacking", [without_package, of_an_old_version, without_driver])
def test_what_is_missing_is_said_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lacking: Any
) -> None:
    words = lacking(monkeypatch)
    with pytest.raises(TensorRTError, match=words):
        export_repository(tmp_path / "nowhere", tmp_path / "repository", backend="tensorrt")


class Driver:
    """CUDA's driver API with one GPU of compute capability 9.0, or none."""

    def __init__(self, gpus: int) -> None:
        self.gpus = gpus

    def cuInit(self, flags: int) -> int:
        return 0

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        return 0 if ordinal < self.gpus else 101

    def cuDeviceGetAttribute(self, number: Any, attribute: int, device: Any) -> int:
        number._obj.value = 9 if attribute == CAPABILITY_MAJOR else 0
        return 0


def test_engines_are_for_the_first_gpu_that_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.SimpleNamespace(__version__="11.1", IKVCacheUpdateLayer=None)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(1))
    library = open_tensorrt()
    assert (library.name, library.version, library.compute_capability) == ("TensorRT", "11.1", "9.0")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(0))
    with pytest.raises(TensorRTError, match="CUDA's error 101"):
        gpu_capability()


def test_tensorrt_rtx_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    with pytest.raises(TensorRTError, match=r"pip install 'neuro-latent-export\[tensorrt-rtx\]'"):
        open_tensorrt_rtx("8.9")


@rtx
def test_an_unknown_compute_capability_is_refused_with_the_known_ones() -> None:
    with pytest.raises(TensorRTError, match=r"--tensorrt-rtx 4\.2: known compute capabilities are 7\.5, .*8\.9"):
        open_tensorrt_rtx("4.2")


@rtx
def test_a_graph_that_tensorrt_does_not_take_is_an_error_with_its_words(
    optimizer: PromptOptimizer, tmp_path: Path
) -> None:
    """The graph of ONNX Runtime: its cache grows."""
    path = tmp_path / "step.onnx"
    ir.save(build_step(optimizer.generator_model, FP32), path)
    with pytest.raises(TensorRTError, match=r"cannot read step\.onnx: .*static sequence length dimension"):
        build_engine(open_tensorrt_rtx("8.9"), path, [])
