"""Engines whose decoder is on a device: this machine's GPU, where it has one, and the same code over host memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from neuro_latent_serving.engine import Engine
from neuro_latent_serving.engine import engine as engine_module
from neuro_latent_serving.engine.device.decoder import DeviceDecoder
from neuro_latent_serving.engine.device.onnx import OnnxRuntime
from neuro_latent_serving.engine.opening import check_cuda
from neuro_latent_serving.sessions import CUDA
from tests.unit.serving.conftest import ask, encoded, start

__all__ = ["ask", "encoded", "start"]

StartOnDevice = Callable[..., tuple[Engine, DeviceDecoder]]


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    """Where the decoder's memory is."""
    if request.param == "cuda":
        if CUDA not in ort.get_available_providers():
            pytest.skip("no GPU: the installed onnxruntime has no CUDA provider (onnxruntime-gpu has)")
        check_cuda()
    return str(request.param)


@pytest.fixture
def decoder_folder(repository: Path) -> Path:
    return repository / "t5_decoder" / "1"


@pytest.fixture
def start_on_device(
    start: Callable[..., Engine], device: str, decoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> StartOnDevice:
    """Starts an engine, as ``start`` does, whose decoder is on the device."""

    def make(cuda_graphs: bool = True, **config: Any) -> tuple[Engine, DeviceDecoder]:
        slots = config.get("slots", 16)
        decoder = DeviceDecoder(OnnxRuntime(decoder_folder, 1, device, cuda_graphs), slots)
        with monkeypatch.context() as patch:
            patch.setattr(engine_module, "open_decoder", lambda *_: decoder)
            return start(**config), decoder

    return make
