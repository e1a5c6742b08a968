"""What the decoder on a device asks of the library that runs its graphs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from neuro_latent_serving.engine.contract import DecoderSizes, Ids

Array = npt.NDArray[Any]

Graph = Literal["prefill", "step"]

WORD = 4
"""Bytes that are moved as one."""

ALIGNMENT = 256
"""Bytes at whose multiples tensors begin, as CUDA's own allocations do."""


@dataclass(frozen=True)
class View:
    """Memory of the device, seen as a tensor; its element type is the graph's matter."""

    pointer: int
    shape: tuple[int, ...]


class DeviceArray(Protocol):
    """A tensor in the device's memory, which is freed with the object."""

    @property
    def view(self) -> View:
        """The whole of it."""

    def write(self, array: Array) -> None:
        """Copy from the host; the shapes and types must be the same."""

    def read(self) -> Array:
        """Copy to the host."""


class Runtime(Protocol):
    """Runs ``prefill`` and ``step``, and moves what lies in its memory."""

    sizes: DecoderSizes
    cache_itemsize: int
    """Bytes of an element of the caches."""
    most_encoder_tokens: int
    fewest_candidates: int
    """What the step graph's ``candidates`` must be at least."""

    @property
    def most_rows(self) -> int | None:
        """That the graphs take; None is any number."""

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """New memory, zero: what is never written may be read and multiplied by 0."""

    def bind(self, graph: Graph, tensors: Mapping[str, View | Ids], captured: bool = False) -> Callable[[], None]:
        """Give a graph its inputs and outputs; what is returned runs it, and waits for its end.

        Args:
            graph: which.
            tensors: by name. An array is a size that the graph reads from the host, and never changes. The cache's
                outputs (``present``) lie where its inputs (``past_key_values``) do, and are not named.
            captured: whether it may run as one CUDA graph.
        """

    def gather(self, source: View, index_J: Ids, target: View) -> None:
        """``target[:, j] = source[:, index_J[j]]``, for words of :data:`WORD` bytes [A, I, C] -> [A, J, C]."""


class PackedTensors:
    """Small tensors side by side in one piece of the device's memory, so that one copy moves them all.

    Args:
        runtime: whose memory it is.
        tensors: shape and type by name.
    """

    def __init__(self, runtime: Runtime, tensors: Mapping[str, tuple[tuple[int, ...], npt.DTypeLike]]) -> None:
        ends = [0]
        for shape, dtype in tensors.values():
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            ends.append(ends[-1] + -(-size // ALIGNMENT) * ALIGNMENT)
        self._bytes = np.zeros(ends[-1], np.uint8)
        self._tensors = [(start, shape, dtype) for start, (shape, dtype) in zip(ends, tensors.values(), strict=False)]
        self.host = self._arrays(self._bytes)
        """What :meth:`write` copies to the device."""
        self._device = runtime.zeros(self._bytes.shape, np.uint8)
        pointer, places = self._device.view.pointer, zip(tensors, self._tensors, strict=True)
        self.views = {name: View(pointer + start, shape) for name, (start, shape, _) in places}

    def write(self) -> None:
        """Copy :attr:`host` to the device."""
        self._device.write(self._bytes)

    def read(self) -> list[Array]:
        """Copies of what the device holds."""
        return self._arrays(self._device.read())

    def _arrays(self, packed: Array) -> list[Array]:
        return [np.ndarray(shape, dtype, packed.data, start) for start, shape, dtype in self._tensors]
