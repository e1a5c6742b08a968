"""The decoder's engines in TensorRT.

Every binding is an execution context of its own, with its shapes and addresses set once; they share scratch memory,
for they run one after the other on one stream. That stream waits for copies on the default one, and they for it.
"""

import logging
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from neuro_latent_serving.engine.contract import DecoderSizes, Ids, present
from neuro_latent_serving.engine.device.runtime import WORD, Array, Graph, View
from neuro_latent_serving.errors import DeviceMissing

try:
    import tensorrt as trt
    from cuda.bindings import runtime as cuda
except ImportError as error:
    raise DeviceMissing(
        f"the decoder of this repository is a TensorRT engine, and Python's TensorRT cannot be loaded ({error}): pip "
        "install 'neuro-latent-serving[tensorrt]', with tensorrt in the version of manifest.json (tensorrt.version)"
    ) from None

log = logging.getLogger(__name__)

NOT_ENQUEUED = "TensorRT does not enqueue"


class CudaArray:
    """Memory of the GPU."""

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._dtype = np.dtype(dtype)
        self._bytes = int(np.prod(shape)) * self._dtype.itemsize
        pointer = _done(cuda.cudaMalloc(self._bytes))
        weakref.finalize(self, cuda.cudaFree, pointer)
        _done(cuda.cudaMemset(pointer, 0, self._bytes))
        self.view = View(pointer, shape)

    def write(self, array: Array) -> None:
        source = np.ascontiguousarray(array, self._dtype)
        kind = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        _done(cuda.cudaMemcpy(self.view.pointer, source.ctypes.data, self._bytes, kind))

    def read(self) -> Array:
        array = np.empty(self.view.shape, self._dtype)
        kind = cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _done(cuda.cudaMemcpy(array.ctypes.data, self.view.pointer, self._bytes, kind))
        return array


class TensorRtRuntime:
    """A :class:`~neuro_latent_serving.engine.device.runtime.Runtime` over ``prefill.plan`` and ``step.plan``.

    Args:
        folder: of the engines.
        cuda_graphs: whether runs are captured.

    Raises:
        DeviceMissing: there is no GPU, or the engines were built for another one or by another TensorRT.
    """

    fewest_candidates = 1

    def __init__(self, folder: Path, cuda_graphs: bool = True) -> None:
        failed, gpus = cuda.cudaGetDeviceCount()
        if failed or not gpus:
            raise DeviceMissing("device is 'gpu', but CUDA finds none: is the driver there, and the GPU visible?")
        self._logger = trt.Logger(trt.Logger.WARNING)
        self._library = trt.Runtime(self._logger)
        self._engines = {graph: self._open(folder / f"{graph}.plan") for graph in ("prefill", "step")}
        self._captures: set[Graph] = {"prefill", "step"} if cuda_graphs else set()
        self._stream = _done(cuda.cudaStreamCreate())
        scratch = max(engine.device_memory_size_v2 for engine in self._engines.values())
        self._scratch = CudaArray((max(scratch, 1),), np.uint8)
        step = self._engines["step"]
        self.sizes = DecoderSizes.of(_shapes(self._engines["prefill"]), _shapes(step))
        self.cache_itemsize: int = step.get_tensor_dtype(self.sizes.self_names[0]).itemsize
        _, _, (most_rows, most_encoder_tokens) = step.get_tensor_profile_shape("encoder_attention_mask", 0)
        self.most_rows: int = most_rows
        self.most_encoder_tokens: int = most_encoder_tokens

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> CudaArray:
        """New memory, zero."""
        return CudaArray(shape, dtype)

    def bind(self, graph: Graph, tensors: Mapping[str, View | Ids], captured: bool = False) -> Callable[[], None]:
        """Give an engine its inputs and outputs: see :class:`~neuro_latent_serving.engine.device.runtime.Runtime`."""
        engine = self._engines[graph]
        context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        context.set_device_memory(self._scratch.view.pointer, self._scratch.view.shape[0])
        rows = next(tensor.shape[0] for tensor in tensors.values() if isinstance(tensor, View))
        # The first profile is tuned for one row, the last for a full batch; Triton takes the nearer one too.
        profile = 0 if 2 * rows <= self.most_rows else engine.num_optimization_profiles - 1
        _check(context.set_optimization_profile_async(profile, int(self._stream)), f"{graph}: profile {profile}")
        for name, tensor in tensors.items():
            pointer = tensor.ctypes.data if isinstance(tensor, np.ndarray) else tensor.pointer
            if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
                _check(context.set_input_shape(name, tensor.shape), f"{graph}: {name} of shape {list(tensor.shape)}")
            _check(context.set_tensor_address(name, pointer), f"{graph}: the memory of {name}")
            if ".decoder." in name:  # the same memory: the engine writes the new columns in place
                _check(context.set_tensor_address(present(name), pointer), f"{graph}: the memory of {present(name)}")
        return self._capturing(graph, context, tensors) if captured else lambda: self._run(graph, context, tensors)

    def gather(self, source: View, index_J: Ids, target: View) -> None:
        """``target[:, j] = source[:, index_J[j]]``, for words of :data:`WORD` bytes; neighbours are copied together."""
        step = source.shape[2] * WORD
        starts = np.flatnonzero(np.diff(index_J, prepend=-2) != 1)
        for start, end in zip(starts, [*starts[1:], len(index_J)], strict=True):
            _done(
                cuda.cudaMemcpy2DAsync(
                    target.pointer + int(start) * step,
                    target.shape[1] * step,
                    source.pointer + int(index_J[start]) * step,
                    source.shape[1] * step,
                    int(end - start) * step,
                    source.shape[0],
                    cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice,
                    self._stream,
                )
            )

    def _open(self, path: Path) -> Any:
        engine = self._library.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise DeviceMissing(
                f"TensorRT {trt.__version__} cannot load {path.name} on this GPU (its own words are in the log): an "
                "engine belongs to the GPU and the version it was built with; export again on this machine"
            )
        return engine

    def _run(self, graph: Graph, context: Any, tensors: Mapping[str, View | Ids]) -> None:
        """One run; ``tensors`` is here so that the sizes that are read from the host's memory stay there."""
        _check(context.execute_async_v3(int(self._stream)), f"{graph}: the run")
        _done(cuda.cudaStreamSynchronize(self._stream))

    def _capturing(self, graph: Graph, context: Any, tensors: Mapping[str, View | Ids]) -> Callable[[], None]:
        """A run that is captured after its first time; where it cannot be, none is captured from then on."""
        launch: Any = None

        def run() -> None:
            nonlocal launch
            if launch is None:
                self._run(graph, context, tensors)
                if graph in self._captures:
                    launch = self._capture(graph, context)
                return
            _done(cuda.cudaGraphLaunch(launch, self._stream))
            _done(cuda.cudaStreamSynchronize(self._stream))

        return run

    def _capture(self, graph: Graph, context: Any) -> Any:
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        (failed,) = cuda.cudaStreamBeginCapture(self._stream, mode)
        if not failed:
            enqueued = context.execute_async_v3(int(self._stream))
            failed, captured = cuda.cudaStreamEndCapture(self._stream)
            if not failed:
                failed, launch = cuda.cudaGraphInstantiate(captured, 0) if enqueued else (NOT_ENQUEUED, None)
                cuda.cudaGraphDestroy(captured)
                if not failed:
                    return launch
        log.warning("the %s cannot be captured as a CUDA graph and runs without: %s", graph, failed)
        self._captures.discard(graph)
        return None


def _shapes(engine: Any) -> dict[str, list[int]]:
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    return {name: list(engine.get_tensor_shape(name)) for name in names}


def _check(worked: bool, what: str) -> None:
    if not worked:
        raise RuntimeError(f"TensorRT refuses {what}; its own words are in the log")


def _done(result: tuple[Any, ...]) -> Any:
    """What a call of CUDA gives.

    Raises:
        RuntimeError: it failed.
    """
    failed, *values = result
    if failed:
        raise RuntimeError(f"CUDA has failed: {failed}")
    return values[0] if values else None
