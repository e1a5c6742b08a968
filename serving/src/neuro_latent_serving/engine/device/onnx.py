"""The decoder's graphs in ONNX Runtime, with all that they read and write in a device's memory."""

import itertools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from neuro_latent_core.limits import MAX_ENCODER_TOKENS
from neuro_latent_serving.engine.contract import DecoderSizes, Ids, present
from neuro_latent_serving.engine.device.runtime import Array, Graph, View
from neuro_latent_serving.errors import DeviceMissing
from neuro_latent_serving.sessions import CPU, CUDA, graph_shapes, open_session

log = logging.getLogger(__name__)

TYPES: dict[str, Any] = {
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(bfloat16)": 16,  # ONNX's number: numpy has no such type
}
ITEM_SIZES = {"tensor(float)": 4, "tensor(float16)": 2, "tensor(bfloat16)": 2}

WITHOUT_CAPTURE = "-1"
CANNOT_CAPTURE = "the %s cannot be captured as a CUDA graph and runs without: %s"
GRAPHS: tuple[Graph, ...] = ("prefill", "step")


class OnnxArray:
    """Memory that ONNX Runtime has taken on a device."""

    def __init__(self, array: Array, device: str) -> None:
        self._value = ort.OrtValue.ortvalue_from_numpy(array, device)
        self.view = View(self._value.data_ptr(), array.shape)

    def write(self, array: Array) -> None:
        self._value.update_inplace(np.ascontiguousarray(array))

    def read(self) -> Array:
        array: Array = self._value.numpy()
        return array


class OnnxRuntime:
    """A :class:`~neuro_latent_serving.engine.device.runtime.Runtime` over the three graphs of a folder.

    Args:
        folder: with ``prefill.onnx``, ``step.onnx`` and ``move.onnx``.
        threads: of what runs on the host.
        device: ``cuda``; with ``cpu`` the same is done in the host's memory, so that it can be tested without a GPU.
        cuda_graphs: whether runs are captured.

    Raises:
        DeviceMissing: ONNX Runtime cannot use the device.
    """

    fewest_candidates = 0
    most_encoder_tokens = MAX_ENCODER_TOKENS
    most_rows = None

    def __init__(self, folder: Path, threads: int, device: str = "cuda", cuda_graphs: bool = True) -> None:
        self._folder, self._threads, self._device = folder, threads, device
        self._graph_ids = itertools.count(1)
        self._move = self._open("move")
        self._captures: set[Graph] = set()
        self._sessions = {graph: self._open_capturing(graph, cuda_graphs) for graph in GRAPHS}
        self.sizes = DecoderSizes.of(*(graph_shapes(session) for session in self._sessions.values()))
        self._types = {
            tensor.name: tensor.type
            for session in self._sessions.values()
            for tensor in [*session.get_inputs(), *session.get_outputs()]
        }
        self.cache_itemsize = ITEM_SIZES[self._types[self.sizes.self_names[0]]]

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> OnnxArray:
        """New memory, zero."""
        return OnnxArray(np.zeros(shape, dtype), self._device)

    def bind(self, graph: Graph, tensors: Mapping[str, View | Ids], captured: bool = False) -> Callable[[], None]:
        """Give a graph its inputs and outputs: see :class:`~neuro_latent_serving.engine.device.runtime.Runtime`."""
        if graph not in self._captures:
            return self._bound(self._sessions[graph], tensors, None)
        return self._capturing(graph, tensors, str(next(self._graph_ids)) if captured else WITHOUT_CAPTURE)

    def gather(self, source: View, index_J: Ids, target: View) -> None:
        """``target[:, j] = source[:, index_J[j]]``, for words of :data:`WORD` bytes."""
        io = self._move.io_binding()
        io.bind_input("source", self._device, 0, np.int32, source.shape, source.pointer)
        io.bind_cpu_input("index", index_J)
        io.bind_output("target", self._device, 0, np.int32, target.shape, target.pointer)
        self._move.run_with_iobinding(io)

    def _bound(
        self, session: ort.InferenceSession, tensors: Mapping[str, View | Ids], graph_id: str | None
    ) -> Callable[[], None]:
        io = session.io_binding()
        inputs = {tensor.name for tensor in session.get_inputs()}
        for name, tensor in tensors.items():
            if isinstance(tensor, np.ndarray):
                io.bind_cpu_input(name, tensor)
                continue
            place = (self._device, 0, TYPES[self._types[name]], tensor.shape, tensor.pointer)
            (io.bind_input if name in inputs else io.bind_output)(name, *place)
            if ".decoder." in name:  # the same memory: the graph writes the new columns in place
                io.bind_output(present(name), *place)
        options = ort.RunOptions()
        if graph_id is not None:
            options.add_run_config_entry("gpu_graph_id", graph_id)

        def run() -> None:
            io.synchronize_inputs()
            session.run_with_iobinding(io, options)

        return run

    def _capturing(self, graph: Graph, tensors: Mapping[str, View | Ids], graph_id: str) -> Callable[[], None]:
        """A run that ONNX Runtime captures at its first call; where it cannot, none of the graph's is from then on."""
        session = self._sessions[graph]
        run = self._bound(session, tensors, graph_id)

        def run_or_give_up() -> None:
            nonlocal session, run
            if session is self._sessions[graph]:
                try:
                    return run()
                except Exception as error:
                    if graph not in self._captures or graph_id == WITHOUT_CAPTURE:
                        raise
                    log.warning(CANNOT_CAPTURE, graph, error)
                    self._captures.discard(graph)
                    self._sessions[graph] = self._open(graph)
            session = self._sessions[graph]
            run = self._bound(session, tensors, None)
            run()

        return run_or_give_up

    def _open_capturing(self, graph: Graph, captures: bool) -> ort.InferenceSession:
        if captures:
            try:
                session = self._open(graph, captures=True)
            except DeviceMissing:
                raise
            except Exception as error:
                log.warning(CANNOT_CAPTURE, graph, error)
            else:
                self._captures.add(graph)
                return session
        return self._open(graph)

    def _open(self, graph: str, captures: bool = False) -> ort.InferenceSession:
        if self._device == "cpu":
            return open_session(self._folder / f"{graph}.onnx", self._threads)
        options = {
            "enable_cuda_graph": str(int(captures)),
            "use_tf32": "0",  # a float32 repository promises the tokens of float32
        }
        try:
            session = open_session(self._folder / f"{graph}.onnx", self._threads, providers=[(CUDA, options), CPU])
        except RuntimeError as error:
            raise DeviceMissing(f"device is 'gpu', but ONNX Runtime's CUDA provider does not start: {error}") from None
        if session.get_providers()[0] != CUDA:  # ONNX Runtime goes on without a provider that does not start
            raise DeviceMissing(
                "device is 'gpu', but ONNX Runtime's CUDA provider does not start: it needs an NVIDIA driver, and the "
                f"libraries of CUDA {ort.cuda_version} and cuDNN 9 (pip install 'onnxruntime-gpu[cuda,cudnn]')"
            )
        return session
