"""Which decoder is opened, and what is said where it cannot be. TensorRT is a fake here: its logic, not its engines."""

import importlib
import shutil
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from neuro_latent_serving.engine import Engine, EngineConfig
from neuro_latent_serving.engine import engine as engine_module
from neuro_latent_serving.engine.device.decoder import DeviceDecoder
from neuro_latent_serving.engine.opening import open_decoder
from neuro_latent_serving.errors import DeviceMissing
from neuro_latent_serving.sessions import CUDA
from tests.unit.serving.askers import Asker
from tests.unit.serving.conftest import PROMPTS
from tests.unit.serving.fake_tensorrt import FakeCuda, fake_tensorrt
from tests.unit.serving.test_token_identity import MODES, together

MODULE = "neuro_latent_serving.engine.device.tensorrt"


@pytest.fixture
def engines(repository: Path, tmp_path: Path) -> Path:
    """A folder with engines, as the fake TensorRT takes them."""
    for graph in ("prefill", "step"):
        shutil.copyfile(repository / "t5_decoder" / "1" / f"{graph}.onnx", tmp_path / f"{graph}.plan")
    return tmp_path


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[FakeCuda], None]]:
    """Puts a fake TensorRT over a fake CUDA in the place of the real ones."""

    def put(cuda: FakeCuda) -> None:
        bindings = types.ModuleType("cuda.bindings")
        bindings.runtime = cuda  # type: ignore[attr-defined]
        for name, module in {"tensorrt": fake_tensorrt(), "cuda.bindings": bindings}.items():
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setitem(sys.modules, "cuda", types.ModuleType("cuda"))
        sys.modules.pop(MODULE, None)
        importlib.import_module(MODULE)

    yield put
    sys.modules.pop(MODULE, None)


@pytest.mark.parametrize("captures", [True, False])
def test_engines_write_what_the_graphs_write(
    start: Callable[..., Engine],
    ask: Callable[..., Asker],
    engines: Path,
    install: Callable[[FakeCuda], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    captures: bool,
) -> None:
    cuda = FakeCuda(captures=captures)
    install(cuda)
    requests = [(PROMPTS[i * 5 % 12], mode) for i, mode in enumerate(MODES.values())]
    want = together(start(slots=6), [ask(text, **mode) for text, mode in requests])
    decoder = open_decoder(engines, 1, 6, "gpu", cuda_graphs=True)
    assert isinstance(decoder, DeviceDecoder)
    monkeypatch.setattr(engine_module, "open_decoder", lambda *_: decoder)
    assert together(start(slots=6), [ask(text, **mode) for text, mode in requests]) == want
    assert (cuda.launched > 0) is captures
    warned = [record.message for record in caplog.records]
    assert warned == (
        []
        if captures
        else ["steps cannot be captured as CUDA graphs and run without: cudaErrorStreamCaptureInvalidated"]
    )


def test_a_gpu_without_its_onnx_runtime_is_an_error_that_says_what_to_install(repository: Path) -> None:
    if CUDA in ort.get_available_providers():
        pytest.skip("the CUDA provider is there")
    with pytest.raises(DeviceMissing, match=r"no CUDAExecutionProvider \(only .*\).*onnxruntime-gpu"):
        open_decoder(repository / "t5_decoder" / "1", 1, 4, "gpu", cuda_graphs=True)


def test_engines_want_a_gpu_and_tensorrt(
    engines: Path, install: Callable[[FakeCuda], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DeviceMissing, match="runs on a GPU only: set the parameter device of t5_decoder to gpu"):
        open_decoder(engines, 1, 4, "cpu", cuda_graphs=True)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(DeviceMissing, match=r"tensorrt is not installed: pip install .*\[tensorrt\]"):
        open_decoder(engines, 1, 4, "gpu", cuda_graphs=True)
    install(FakeCuda(gpus=0))
    with pytest.raises(DeviceMissing, match="CUDA finds none"):
        open_decoder(engines, 1, 4, "gpu", cuda_graphs=True)
    install(FakeCuda())
    (engines / "prefill.plan").write_bytes(b"")
    with pytest.raises(DeviceMissing, match=r"cannot load prefill\.plan on this GPU"):
        open_decoder(engines, 1, 4, "gpu", cuda_graphs=True)


def test_another_device_is_no_device() -> None:
    wrong: Any = "cuda"
    with pytest.raises(ValueError, match="device must be cpu or gpu, not 'cuda'"):
        EngineConfig(decoder_start_id=0, eos_id=1, device=wrong)
