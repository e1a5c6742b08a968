"""Which decoder is created, and the errors where none can be. TensorRT is a fake here: its logic, not its engines."""

import importlib
import shutil
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from neuro_latent_core.errors import InvalidInput
from neuro_latent_serving.engine import Engine, EngineConfig
from neuro_latent_serving.engine import engine as engine_module
from neuro_latent_serving.engine.decoder_factory import create_decoder
from neuro_latent_serving.engine.device.device_decoder import DeviceDecoder
from neuro_latent_serving.engine.device.onnx import OnnxRuntime
from neuro_latent_serving.errors import DeviceMissing
from neuro_latent_serving.sessions import CUDA
from tests.unit.serving.askers import Asker
from tests.unit.serving.conftest import PROMPTS
from tests.unit.serving.fake_tensorrt import FakeCuda, FakeEngine, fake_tensorrt
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


NO_CAPTURE = {
    "begin": "cudaErrorStreamCaptureUnsupported",
    "enqueue": "TensorRT does not enqueue",
    "end": "cudaErrorStreamCaptureInvalidated",
    "instantiate": "cudaErrorNotSupported",
}


@pytest.mark.parametrize("failing", ["", *NO_CAPTURE])
def test_engines_write_what_the_graphs_write(
    start: Callable[..., Engine],
    ask: Callable[..., Asker],
    engines: Path,
    install: Callable[[FakeCuda], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failing: str,
) -> None:
    cuda = FakeCuda(failing=failing)
    install(cuda)
    monkeypatch.setattr(FakeEngine, "refuses_captures", failing == "enqueue")
    requests = [(PROMPTS[i * 5 % 12], mode) for i, mode in enumerate(MODES.values())]
    want = together(start(slots=10), [ask(text, **mode) for text, mode in requests])
    decoder = create_decoder(engines, 1, 10, "gpu", cuda_graphs=True)
    assert isinstance(decoder, DeviceDecoder)
    monkeypatch.setattr(engine_module, "create_decoder", lambda *_: decoder)
    assert together(start(slots=10), [ask(text, **mode) for text, mode in requests]) == want
    assert (cuda.launched > 0) is not failing
    assert cuda.graphs == 0
    assert [record.message for record in caplog.records] == [
        f"the {graph} cannot be captured as a CUDA graph and runs without: {NO_CAPTURE[failing]}"
        for graph in ("prefill", "step")
        if failing
    ]


def test_a_prompt_that_the_engines_do_not_take_is_refused_at_once(
    start: Callable[..., Engine],
    ask: Callable[..., Asker],
    engines: Path,
    install: Callable[[FakeCuda], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(FakeCuda())
    decoder = create_decoder(engines, 1, 4, "gpu", cuda_graphs=True)
    monkeypatch.setattr(engine_module, "create_decoder", lambda *_: decoder)
    engine, asker = start(slots=4), ask()
    asker.request.hidden_QD = np.zeros((545, decoder.width), np.float32)
    with pytest.raises(InvalidInput, match="has 545 tokens; the limit is 544"):
        engine.submit(asker.request)


def test_a_provider_that_does_not_start_is_an_error_with_its_own_words(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA failure 35: driver version is insufficient")

    monkeypatch.setattr(ort.InferenceSession, "_create_inference_session", fail)
    with pytest.raises(DeviceMissing, match="CUDA provider does not start: CUDA failure 35"):
        OnnxRuntime(repository / "t5_decoder" / "1", 1)


def test_a_gpu_without_its_onnx_runtime_is_an_error_that_says_what_to_install(repository: Path) -> None:
    if CUDA in ort.get_available_providers():
        pytest.skip("the CUDA provider is there")
    with pytest.raises(DeviceMissing, match=r"no CUDAExecutionProvider \(only .*\).*onnxruntime-gpu"):
        create_decoder(repository / "t5_decoder" / "1", 1, 4, "gpu", cuda_graphs=True)


def test_engines_want_a_gpu_and_tensorrt(
    engines: Path, install: Callable[[FakeCuda], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DeviceMissing, match="runs on a GPU only: set the parameter device of t5_decoder to gpu"):
        create_decoder(engines, 1, 4, "cpu", cuda_graphs=True)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(DeviceMissing, match=r"cannot be loaded \(.*tensorrt.*\): pip install .*\[tensorrt\]"):
        create_decoder(engines, 1, 4, "gpu", cuda_graphs=True)
    install(FakeCuda(gpus=0))
    with pytest.raises(DeviceMissing, match="CUDA finds none"):
        create_decoder(engines, 1, 4, "gpu", cuda_graphs=True)
    install(FakeCuda())
    with pytest.raises(DeviceMissing, match="slots is 17, and these engines take 16 rows: set the parameter slots"):
        create_decoder(engines, 1, 17, "gpu", cuda_graphs=True)
    (engines / "prefill.plan").write_bytes(b"")
    with pytest.raises(DeviceMissing, match=r"cannot load prefill\.plan on this GPU"):
        create_decoder(engines, 1, 4, "gpu", cuda_graphs=True)


def test_another_device_is_no_device() -> None:
    wrong: Any = "cuda"
    with pytest.raises(ValueError, match="device must be cpu or gpu, not 'cuda'"):
        EngineConfig(decoder_start_id=0, eos_id=1, device=wrong)
