"""TensorRT and CUDA as far as the decoder uses them, over host memory: an engine runs the ONNX graph of its name.

Their ways are kept: calls of CUDA answer with a status first, a size that was not set is refused at the run, a present
cache must be where the past one is, and what is captured goes on with the addresses that it was captured with.
"""

import ctypes
import itertools
import types
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
import onnxruntime as ort

COLUMNS = 520
MOST = {"batch": 16, "encoder_tokens": 544, "width": 8}
TYPES = {"tensor(int64)": np.int64, "tensor(float)": np.float32}


def seen(pointer: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_byte * count).from_address(pointer), dtype).reshape(shape)


class TensorIOMode(IntEnum):
    INPUT = 1
    OUTPUT = 2


class FakeEngine:
    """An engine that takes any batch, with a cache of fixed width and the input that says how much of it is seen."""

    num_optimization_profiles = 2
    device_memory_size_v2 = 64
    refuses_captures = False

    def __init__(self, plan: bytes) -> None:
        self.session = ort.InferenceSession(plan, providers=["CPUExecutionProvider"])
        self.inputs = {t.name: t for t in self.session.get_inputs()}
        self.outputs = {t.name: t for t in self.session.get_outputs()}
        self.names = [*self.inputs, *self.outputs]
        if "cache_lengths" in self.inputs:
            self.names.append("columns")
        self.contexts: list[FakeContext] = []

    @property
    def num_io_tensors(self) -> int:
        return len(self.names)

    def get_tensor_name(self, i: int) -> str:
        return self.names[i]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.OUTPUT if name in self.outputs else TensorIOMode.INPUT

    def get_tensor_shape(self, name: str) -> list[int]:
        if name == "columns":
            return [1]
        axes = (self.inputs | self.outputs)[name].shape
        return [COLUMNS if axis == "columns" else axis if isinstance(axis, int) else -1 for axis in axes]

    def get_tensor_dtype(self, name: str) -> Any:
        return types.SimpleNamespace(itemsize=np.dtype(TYPES[self.inputs[name].type]).itemsize)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
        most = [axis if isinstance(axis, int) else MOST.get(axis, COLUMNS) for axis in self.inputs[name].shape]
        return [[1] * len(most), most, most]

    def create_execution_context(self, strategy: str) -> "FakeContext":
        assert strategy == "USER_MANAGED"
        self.contexts.append(FakeContext(self))
        return self.contexts[-1]


@dataclass
class FakeContext:
    engine: FakeEngine
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    addresses: dict[str, int] = field(default_factory=dict)
    scratch: tuple[int, int] = (0, 0)
    profile: int | None = None

    def set_device_memory(self, pointer: int, size: int) -> None:
        self.scratch = pointer, size

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self.profile = profile
        return profile < self.engine.num_optimization_profiles

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = tuple(shape)
        if name in ("columns", "candidates"):
            return tuple(shape) == (1,)
        most = self.engine.get_tensor_profile_shape(name, 0)[2]
        return all(size <= limit for size, limit in zip(shape, most, strict=True))

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        self.addresses[name] = pointer
        return name in self.engine.names and pointer != 0

    def execute_async_v3(self, stream: int) -> bool:
        captured = CAPTURES.get(stream)
        if captured is not None:
            captured.append(self)
            return not self.engine.refuses_captures
        return self.run()

    def run(self) -> bool:
        engine = self.engine
        assert self.scratch[1] >= engine.device_memory_size_v2
        assert self.profile == (0 if self.shapes[next(iter(engine.inputs))][0] <= 8 else 1)
        assert set(self.addresses) == set(engine.names), "every tensor needs an address"
        feeds = {
            name: seen(self.addresses[name], self.shapes[name], TYPES[tensor.type])
            for name, tensor in engine.inputs.items()
        }
        if "columns" in engine.names:
            (columns,) = seen(self.addresses["columns"], (1,), np.int64)
            assert (feeds["cache_lengths"] + feeds["decoder_input_ids"].shape[1]).max() <= columns <= COLUMNS
            assert feeds["candidates"][0] >= 1
        for name, array in zip(engine.outputs, engine.session.run(None, feeds), strict=True):
            past = name.replace("present", "past_key_values")
            assert past not in self.addresses or past == name or self.addresses[past] == self.addresses[name]
            seen(self.addresses[name], array.shape, array.dtype)[:] = array
        return True


CAPTURES: dict[int, list[FakeContext]] = {}


class FakeCuda:
    """``cuda.bindings.runtime``."""

    cudaMemcpyKind = types.SimpleNamespace(
        cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2, cudaMemcpyDeviceToDevice=3
    )
    cudaStreamCaptureMode = types.SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self, gpus: int = 1, failing: str = "") -> None:
        self.gpus, self.failing = gpus, failing
        self.graphs = 0
        """That were not destroyed."""
        self.memory: dict[int, Any] = {}
        self.launched = 0
        self._streams = itertools.count(1)

    def cudaGetDeviceCount(self) -> tuple[int, int]:
        return 0, self.gpus

    def cudaStreamCreate(self) -> tuple[int, int]:
        return 0, next(self._streams)

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:
        return (0,)

    def cudaMalloc(self, size: int) -> tuple[int, int]:
        array = np.full(size, 0xFF, np.uint8)  # NaN, in every type
        self.memory[array.ctypes.data] = array
        return 0, array.ctypes.data

    def cudaFree(self, pointer: int) -> tuple[int]:
        del self.memory[pointer]
        return (0,)

    def cudaMemset(self, pointer: int, value: int, size: int) -> tuple[int]:
        ctypes.memset(pointer, value, size)
        return (0,)

    def cudaMemcpy(self, to: int, source: int, size: int, kind: int) -> tuple[int]:
        ctypes.memmove(to, source, size)
        return (0,)

    def cudaMemcpy2DAsync(
        self, to: int, to_pitch: int, source: int, pitch: int, width: int, height: int, kind: int, stream: int
    ) -> tuple[int]:
        assert width <= min(to_pitch, pitch)
        for row in range(height):
            ctypes.memmove(to + row * to_pitch, source + row * pitch, width)
        return (0,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Any]:
        if self.failing == "begin":
            return ("cudaErrorStreamCaptureUnsupported",)
        CAPTURES[stream] = []
        return (0,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, Any]:
        captured = CAPTURES.pop(stream)
        if self.failing == "end":
            return "cudaErrorStreamCaptureInvalidated", None
        self.graphs += 1
        return 0, captured

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[Any, Any]:
        assert graph, "nothing was captured"
        return ("cudaErrorNotSupported", None) if self.failing == "instantiate" else (0, list(graph))

    def cudaGraphDestroy(self, graph: Any) -> tuple[int]:
        self.graphs -= 1
        return (0,)

    def cudaGraphLaunch(self, graph: list[FakeContext], stream: int) -> tuple[int]:
        self.launched += 1
        for context in graph:
            context.run()
        return (0,)


def fake_tensorrt() -> types.ModuleType:
    """``tensorrt``; it loads what is an ONNX graph."""

    class Logger:
        WARNING = 2

        def __init__(self, severity: int) -> None: ...

    class Runtime:
        def __init__(self, logger: Logger) -> None: ...

        def deserialize_cuda_engine(self, plan: bytes) -> FakeEngine | None:
            return FakeEngine(plan) if plan else None

    module = types.ModuleType("tensorrt")
    strategy = types.SimpleNamespace(USER_MANAGED="USER_MANAGED")
    module.__dict__.update(
        Logger=Logger,
        Runtime=Runtime,
        TensorIOMode=TensorIOMode,
        ExecutionContextAllocationStrategy=strategy,
        __version__="0.fake",
    )
    return module
