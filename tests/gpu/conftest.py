"""Engines whose decoder is on a device: this machine's GPU, where it has one, and the same code over host memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir
import onnxruntime as ort
import pytest

from neuro_latent_export.decoder_graphs import build_prefill, build_step
from neuro_latent_export.graphs import Sizes
from neuro_latent_export.parity import DECODER_PATHS
from neuro_latent_export.precision import FP32
from neuro_latent_export.tensorrt.engines import build_engine, plan_path
from neuro_latent_export.tensorrt.library import TensorRTError, gpu_capability, open_tensorrt
from neuro_latent_export.tensorrt.profiles import ROWS, profiles
from neuro_latent_serving.engine import Engine
from neuro_latent_serving.engine import engine as engine_module
from neuro_latent_serving.engine.decoder_factory import check_cuda
from neuro_latent_serving.engine.device.device_decoder import DeviceDecoder
from neuro_latent_serving.engine.device.onnx import OnnxRuntime
from neuro_latent_serving.engine.device.runtime import Runtime
from neuro_latent_serving.sessions import CUDA
from neuro_latent_trainer.model import PromptOptimizer
from tests.unit.serving.conftest import ask, encoded, start

__all__ = ["ask", "encoded", "start"]

StartOnDevice = Callable[..., tuple[Engine, DeviceDecoder]]


@pytest.fixture(params=["cpu", "cuda", "tensorrt"])
def device(request: pytest.FixtureRequest) -> str:
    """Where the decoder's memory is; in ONNX Runtime, unless it says TensorRT."""
    if request.param == "tensorrt":
        for module in ("tensorrt", "cuda.bindings.runtime"):
            pytest.importorskip(module, exc_type=ImportError)
        try:
            gpu_capability()
        except TensorRTError as error:
            pytest.skip(str(error))
    if request.param == "cuda":
        if CUDA not in ort.get_available_providers():
            pytest.skip("no GPU: the installed onnxruntime has no CUDA provider (onnxruntime-gpu has)")
        check_cuda()
    return str(request.param)


@pytest.fixture
def decoder_folder(repository: Path) -> Path:
    return repository / "t5_decoder" / "1"


@pytest.fixture(scope="session")
def engines(optimizer: PromptOptimizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same decoder as engines, built for this machine's GPU."""
    folder = tmp_path_factory.mktemp("engines")
    its_profiles = profiles(Sizes.of(optimizer), optimizer.encoder.max_tokens)
    for path, build in zip(DECODER_PATHS, (build_prefill, build_step), strict=True):
        graph = folder / Path(path).name
        onnx_ir.save(build(optimizer.generator_model, FP32, "tensorrt"), graph)
        engine = build_engine(open_tensorrt(), graph, its_profiles[path])
        (folder / Path(plan_path(path)).name).write_bytes(engine.plan)
    return folder


@pytest.fixture
def open_runtime(request: pytest.FixtureRequest, device: str, decoder_folder: Path) -> Callable[[bool], Runtime]:
    """Opens what runs the decoder's graphs on the device, with CUDA graphs or without."""

    def make(cuda_graphs: bool) -> Runtime:
        if device != "tensorrt":
            return OnnxRuntime(decoder_folder, 1, device, cuda_graphs)
        from neuro_latent_serving.engine.device.tensorrt import TensorRtRuntime

        return TensorRtRuntime(request.getfixturevalue("engines"), cuda_graphs)

    return make


@pytest.fixture
def start_on_device(
    start: Callable[..., Engine],
    device: str,
    open_runtime: Callable[[bool], Runtime],
    monkeypatch: pytest.MonkeyPatch,
) -> StartOnDevice:
    """Starts an engine, as ``start`` does, whose decoder is on the device, and warms it up."""

    def make(cuda_graphs: bool = True, **config: Any) -> tuple[Engine, DeviceDecoder]:
        slots = config.get("slots", 16)
        if device == "tensorrt" and slots > ROWS:
            pytest.skip(f"the engines take {ROWS} rows")
        decoder = DeviceDecoder(open_runtime(cuda_graphs), slots)
        with monkeypatch.context() as patch:
            patch.setattr(engine_module, "create_decoder", lambda *_: decoder)
            engine = start(**config)
        engine.warm_up()
        return engine, decoder

    return make
