"""The device's cache against the model that the CPU's is held against, in host memory."""

import ctypes
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import invariant

from neuro_latent_serving.engine.contract import DecoderSizes
from neuro_latent_serving.engine.device.device_cache import DeviceCache
from neuro_latent_serving.engine.device.runtime import View
from tests.unit.serving.test_cache import CROSS_NAMES, HEAD_WIDTH, HEADS, SELF_NAMES, CacheMachine

Array = np.ndarray[Any, Any]


def seen(view: View, dtype: Any) -> Array:
    """Memory as an array."""
    count = int(np.prod(view.shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_byte * count).from_address(view.pointer), dtype).reshape(view.shape)


class HostArray:
    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self._array = np.zeros(shape, dtype)
        self.view = View(self._array.ctypes.data, shape)


class HostRuntime:
    """Memory and moves of a runtime, without graphs."""

    cache_itemsize, most_encoder_tokens, most_rows, fewest_candidates = 4, 500, None, 0

    def __init__(self, columns: int | None = None) -> None:
        names = tuple(SELF_NAMES), tuple(CROSS_NAMES)
        self.arrays = weakref.WeakSet[HostArray]()
        self.sizes = DecoderSizes(*names, HEADS, HEAD_WIDTH, width=1, vocabulary=1, columns=columns)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> HostArray:
        array = HostArray(shape, dtype)
        self.arrays.add(array)
        return array

    def gather(self, source: View, index_J: Array, target: View) -> None:
        assert source.pointer != target.pointer, "a device reads and writes at once"
        seen(target, np.int32)[:] = seen(source, np.int32)[:, index_J]


class Driven:
    """A device's cache, driven as the CPU's."""

    def __init__(self, slots: int, columns: int | None) -> None:
        self.runtime = HostRuntime(columns)
        self.cache = DeviceCache(self.runtime, slots)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cache, name)

    @property
    def layout(self) -> tuple[int, ...]:
        """Columns and encoder columns."""
        return self.cache.columns

    @property
    def encoder_mask_BQ(self) -> Array:
        return self.cache.mask(self.cache.rows)

    def join(self, cross: Sequence[Array], mask_Q: Array, copies: int) -> range:
        new, places = self.cache.make_room(len(mask_Q), copies)
        for part, (_, place) in zip(cross, places, strict=True):
            seen(place, np.float32)[:, :, : len(mask_Q)] = part
        self.cache.take(new, mask_Q)
        return new

    def tensors(self) -> Iterator[tuple[str, Array]]:
        self.cache.fit(0)  # so that all is where it belongs
        for name, view in self.cache.tensors(self.cache.rows):
            yield name, seen(view, np.float32)


class DeviceCacheMachine(CacheMachine):
    """Columns are powers of two, and twice as many are kept."""

    columns: int | None = None

    def make_cache(self, slots: int) -> Any:
        return Driven(slots, self.columns)

    def most_columns(self, needed: int) -> float:
        return max(4 * needed, 128)

    def most_encoder_columns(self, wide: int) -> float:
        return max(4 * wide, 64)

    @invariant()
    def layout_tells_when_memory_has_moved(self) -> None:
        """The same columns are the same memory."""
        if self.rows:
            self.cache.fit(0)
            pointers = tuple((view.pointer, *view.shape[1:]) for _, view in self.cache.cache.tensors(1))
            assert self.where.setdefault(self.cache.cache.columns, pointers) == pointers


class FixedCacheMachine(DeviceCacheMachine):
    """The columns that TensorRT's engines have."""

    columns = 4096


DeviceCacheMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=25)
FixedCacheMachine.TestCase.settings = settings(max_examples=10, stateful_step_count=25)
TestDeviceCache, TestFixedCache = DeviceCacheMachine.TestCase, FixedCacheMachine.TestCase


def test_rows_that_nobody_has_see_one_token_each() -> None:
    cache = Driven(4, None)
    cache.join([np.ones((1, HEADS, 3, HEAD_WIDTH), "f4")] * 2, np.array([0, 1, 1]), 2)
    assert cache.mask(4)[:, :3].tolist() == [[0, 1, 1], [0, 1, 1], [1, 0, 0], [1, 0, 0]]
    cache.leave([0, 1])
    assert cache.mask(4)[:, :3].tolist() == [[1, 0, 0]] * 4


def test_a_prompt_that_the_graph_does_not_take_is_refused_and_takes_no_row() -> None:
    cache = Driven(4, None)
    with pytest.raises(ValueError, match="501 encoder tokens do not fit: the step graph takes 500"):
        cache.make_room(501, 1)
    assert cache.rows == 0


def test_memory_of_every_size_is_kept_and_used_again() -> None:
    cache = Driven(4, None)
    taken = set[int]()
    for _ in range(3):
        cache.join([np.ones((1, HEADS, 90, HEAD_WIDTH), "f4")] * 2, np.ones(90, dtype=np.int64), 3)
        for _ in range(300):
            cache.fit(1)
            cache.reorder([0, 1, 2], [1, 0, 0])
            cache.lengths_B[:] += 1
        cache.leave([0, 1, 2])
        cache.fit(0)
        taken.add(sum(array.view.shape[0] for array in cache.runtime.arrays))
    assert len(taken) == 1
    largest = sum(len(names) * columns for names, columns in ((SELF_NAMES, 512), (CROSS_NAMES, 128)))
    assert taken.pop() < 3 * largest * 4 * HEADS * HEAD_WIDTH * 4
