"""The rows that decode together, and their keys and values, in memory that the step graph writes in place.

Row ``b`` holds its tokens in its first ``lengths_B[b]`` columns; what lies behind is never looked at, so rows may have
any lengths and a token that did not count is simply overwritten. Rows in flight are the first ones; when one leaves,
the last takes its place. The tensors are kept as tight as the longest row, because attention walks over all columns.

Shape letters: ``B`` rows in flight, ``T`` columns, ``Q`` encoder tokens, ``N`` heads, ``H`` head width.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from neuro_latent_serving.engine.contract import Ids
from neuro_latent_serving.engine.rows import Rows

Floats = npt.NDArray[np.float16 | np.float32]

COLUMN_STEP = 32
"""Columns are added this many at a time at first, then by a quarter: each growth copies what the rows hold."""

ENCODER_STEP = 16

ROOMY = 512
"""Columns, over all rows, that cost next to nothing: below that, memory stays as it is. A new size costs a step about a
millisecond, for ONNX Runtime plans its memory for each shape anew."""


class SlotCache(Rows):
    """Self-attention and cross-attention keys and values of up to ``slots`` rows."""

    def __init__(
        self,
        slots: int,
        heads: int,
        head_width: int,
        self_names: Sequence[str],
        cross_names: Sequence[str],
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__(slots)
        self._heads, self._head_width, self._dtype = heads, head_width, dtype
        self._self = {name: self._empty(0) for name in self_names}
        self._cross = {name: self._empty(0) for name in cross_names}
        self._columns = self._encoder_columns = 0
        self.reallocations = 0
        """How often tensors were moved to memory of another size."""

    def _empty(self, columns: int) -> Floats:
        return np.zeros((self._slots, self._heads, columns, self._head_width), dtype=self._dtype)

    @property
    def layout(self) -> tuple[int, int, int]:
        """Changes whenever the tensors lie elsewhere."""
        return self._columns, self._encoder_columns, self.reallocations

    @property
    def encoder_mask_BQ(self) -> Ids:
        """1 where an encoder token is real."""
        return self._mask[: self.rows]

    @property
    def bytes(self) -> int:
        """Memory of all tensors, whether used or not."""
        return sum(tensor.nbytes for tensor in [*self._self.values(), *self._cross.values()])

    def tensors(self) -> Iterator[tuple[str, Floats]]:
        """Name in the step graph and tensor of the rows in flight."""
        for name, tensor in [*self._self.items(), *self._cross.items()]:
            yield name, tensor[: self.rows]

    def join(self, cross: Sequence[Floats], encoder_mask_Q: Ids, copies: int) -> range:
        """Add ``copies`` rows that share one prompt, with nothing written yet; returns their numbers.

        Args:
            cross: keys and values of the prefill, each [1, N, Q, H], in the order of the names.
            encoder_mask_Q: 1 where ``cross`` is real.
            copies: how many rows.
        """
        new = self._free(copies)
        wide = len(encoder_mask_Q)
        if wide > self._encoder_columns:
            self._resize_encoder(_rounded(wide, ENCODER_STEP))
        for tensor, part in zip(self._cross.values(), cross, strict=True):
            tensor[new.start : new.stop, :, :wide] = part
        self._take(new, encoder_mask_Q)
        return new

    def fit(self, width: int) -> None:
        """Make room for ``width`` more columns a row, and give back what is far too much."""
        needed = _grown(int(self.lengths_B.max(initial=0)) + width)
        if needed > self._columns:
            roomy = ROOMY // max(self.rows, 1) // COLUMN_STEP * COLUMN_STEP
            self._resize_self(max(needed, min(2 * self._columns, roomy)))
        elif self._far_too_wide(self._columns, needed):
            self._resize_self(needed)
        needed = _rounded(int(self._encoder_lengths[: self.rows].max(initial=0)), ENCODER_STEP)
        if self._far_too_wide(self._encoder_columns, needed):
            self._resize_encoder(needed)

    def _far_too_wide(self, columns: int, needed: int) -> bool:
        return columns >= 2 * needed and columns * self.rows > ROOMY

    def _move_row(self, source: int, to: int) -> None:
        length, wide = int(self._all_lengths[source]), int(self._encoder_lengths[source])
        for tensor in self._self.values():
            tensor[to, :, :length] = tensor[source, :, :length]
        for tensor in self._cross.values():
            tensor[to, :, :wide] = tensor[source, :, :wide]
        super()._move_row(source, to)

    def _copy_written(self, source: Sequence[int], to: Sequence[int]) -> None:
        length = int(self._all_lengths[source].max())
        for tensor in self._self.values():
            tensor[to, :, :length] = tensor[source, :, :length]  # the right side is a copy

    def _resize_self(self, columns: int) -> None:
        kept = min(columns, self._columns, int(self.lengths_B.max(initial=0)))
        self._self = self._resized(self._self, columns, kept)
        self._columns = columns
        self.reallocations += 1

    def _resized(self, tensors: dict[str, Floats], columns: int, kept: int) -> dict[str, Floats]:
        """Tensors of another size; the old ones stay whole, so that running out of memory on the way loses nothing."""
        new = {name: self._empty(columns) for name in tensors}
        for name, tensor in tensors.items():
            new[name][: self.rows, :, :kept] = tensor[: self.rows, :, :kept]
        return new

    def _resize_encoder(self, columns: int) -> None:
        self._cross = self._resized(self._cross, columns, min(columns, self._encoder_columns))
        self._resize_mask(columns)
        self._encoder_columns = columns
        self.reallocations += 1


def _rounded(size: int, step: int) -> int:
    return -(-size // step) * step


def _grown(columns: int) -> int:
    return _rounded(columns, max(COLUMN_STEP, _rounded(columns // 4, COLUMN_STEP)))
