"""Rows of keys and values in a device's memory.

Tensors have few sizes, so that a captured graph serves many steps: columns are powers of two, and memory of each size
is kept once it was needed, for captured graphs point into it. Rows move all at once and only when they must: until then
it is only noted where the data of each row lies. They move by way of spare memory, for what is read cannot be written
at the same time.

Shape letters: ``L`` tensors of one kind (keys and values of every layer), ``B`` rows, ``T`` columns, ``Q`` encoder
tokens, ``N`` heads, ``H`` head width.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from neuro_latent_serving.engine.contract import Ids
from neuro_latent_serving.engine.device.runtime import WORD, DeviceArray, Runtime, View
from neuro_latent_serving.engine.rows import Rows

FEWEST_COLUMNS = 64
FEWEST_ENCODER_COLUMNS = 32


class Block:
    """The keys and values of one kind of attention, of all layers side by side: [L, B, N, T, H]."""

    def __init__(self, runtime: Runtime, names: Sequence[str], slots: int, columns: int) -> None:
        self._runtime, self._names, self._slots, self.columns = runtime, names, slots, columns
        self._memory: dict[int, DeviceArray] = {}
        """By columns."""
        self._spare: DeviceArray | None = None
        self._source_B = np.arange(slots)
        """Where the data of each row lies."""
        self._settled = True

    def tensors(self, rows: range) -> Iterator[tuple[str, View]]:
        """Name in the step graph and tensor of some rows, one after the other."""
        heads, width = self._runtime.sizes.heads, self._runtime.sizes.head_width
        row_bytes = heads * self.columns * width * self._runtime.cache_itemsize
        start = self._array(self.columns).view.pointer + rows.start * row_bytes
        for number, name in enumerate(self._names):
            pointer = start + number * self._slots * row_bytes
            yield name, View(pointer, (len(rows), heads, self.columns, width))

    def copy_rows(self, source: Sequence[int], to: Sequence[int]) -> None:
        """Rows ``to`` go on with what rows ``source`` hold, from the next :meth:`settle` on."""
        self._source_B[to] = self._source_B[source]
        self._settled = False

    def settle(self, rows: int, columns: int) -> None:
        """Bring the data of the first ``rows`` rows to where it belongs, in tensors with ``columns`` columns."""
        if self._settled and columns == self.columns:
            return
        if (self._source_B[:rows] != np.arange(rows)).any():
            spare = self._spare_memory()
            self._source_B[rows:] = np.arange(rows, self._slots)
            self._runtime.gather(self._rows(self._array(self.columns)), self._source_B, self._rows(spare))
            self._copy_columns(spare, columns)
        elif rows and columns != self.columns:
            self._copy_columns(self._array(self.columns), columns)
        self._source_B, self._settled = np.arange(self._slots), True
        self.columns = columns

    def _copy_columns(self, memory: DeviceArray, columns: int) -> None:
        """To where ``columns`` columns lie. New ones get what old ones hold: any finite numbers will do."""
        source, target = self._columns(memory, self.columns), self._columns(self._array(columns), columns)
        self._runtime.gather(source, np.arange(columns) % self.columns, target)

    def _rows(self, memory: DeviceArray) -> View:
        """All tensors as words, row by row: [L, B, N*T*H]."""
        heads = self._runtime.sizes.heads
        return View(memory.view.pointer, (len(self._names), self._slots, heads * self.columns * self._column_words))

    def _columns(self, memory: DeviceArray, columns: int) -> View:
        """All tensors as words, column by column: [L*B*N, T, H]."""
        heads = self._runtime.sizes.heads
        return View(memory.view.pointer, (len(self._names) * self._slots * heads, columns, self._column_words))

    @property
    def _column_words(self) -> int:
        return self._runtime.sizes.head_width * self._runtime.cache_itemsize // WORD

    def _array(self, columns: int) -> DeviceArray:
        if columns not in self._memory:
            self._memory[columns] = self._runtime.zeros((self._bytes(columns),), np.uint8)
        return self._memory[columns]

    def _spare_memory(self) -> DeviceArray:
        """As much as the tensors need now; no captured graph points there."""
        needed = self._bytes(self.columns)
        if self._spare is None or self._spare.view.shape[0] < needed:
            self._spare = self._runtime.zeros((needed,), np.uint8)
        return self._spare

    def _bytes(self, columns: int) -> int:
        return len(self._names) * self._slots * self._runtime.sizes.heads * columns * self._column_words * WORD


class DeviceCache(Rows):
    """Self-attention and cross-attention keys and values of up to ``slots`` rows.

    Rows that are not in flight see one encoder token, so that a step that takes more rows than there are computes
    numbers for them: of masks alone float16 makes NaN, which would stay in their columns.
    """

    def __init__(self, runtime: Runtime, slots: int) -> None:
        super().__init__(slots)
        sizes = runtime.sizes
        self._most_encoder_columns = runtime.most_encoder_tokens
        self._fixed_columns = sizes.columns
        self._seen = FEWEST_COLUMNS
        self._self = Block(runtime, sizes.self_names, slots, sizes.columns or FEWEST_COLUMNS)
        self._cross = Block(runtime, sizes.cross_names, slots, FEWEST_ENCODER_COLUMNS)
        self._resize_mask(self._cross.columns)
        self.joins_and_leaves = 0
        """Counts what changes the encoder mask."""

    @property
    def columns(self) -> tuple[int, int]:
        """Those that a step looks at, and those of the prompts; the same numbers are tensors in the same memory."""
        return self._seen, self._cross.columns

    @property
    def seen_columns(self) -> int:
        """Columns that a step looks at; all of them where the graph takes any number."""
        return self._seen

    def tensors(self, rows: int) -> Iterator[tuple[str, View]]:
        """Name in the step graph and tensor of the first ``rows`` rows, in flight or not."""
        yield from self._self.tensors(range(rows))
        yield from self._cross.tensors(range(rows))

    def mask(self, rows: int) -> Ids:
        """1 where an encoder token is real, of the first ``rows`` rows, in flight or not: [rows, Q]."""
        mask = self._mask[:rows].copy()
        mask[self.rows :] = 0
        mask[self.rows :, 0] = 1
        return mask

    def make_room(self, wide: int, copies: int) -> tuple[range, list[tuple[str, View]]]:
        """Places for a prompt of ``wide`` encoder tokens: free rows, and their tensors for the prefill to write.

        Raises:
            ValueError: there are not so many free rows, or columns.
        """
        new = self._free(copies)
        if wide > self._most_encoder_columns:
            raise ValueError(f"{wide} encoder tokens do not fit: the step graph takes {self._most_encoder_columns}")
        self._fit_encoder(wide)
        return new, list(self._cross.tensors(new))

    def take(self, new: range, encoder_mask_Q: Ids) -> None:
        """Count in the rows that :meth:`make_room` gave."""
        self._take(new, encoder_mask_Q)
        self.joins_and_leaves += 1

    def leave(self, gone: Sequence[int]) -> dict[int, int]:
        """Free rows; returns which rows were moved: old number -> new number."""
        self.joins_and_leaves += 1
        return super().leave(gone)

    def fit(self, width: int) -> None:
        """Bring all rows to their places, with room for ``width`` more columns each."""
        self._seen = _fitting(self._seen, int(self.lengths_B.max(initial=0)) + width, FEWEST_COLUMNS)
        self._seen = min(self._seen, self._fixed_columns or self._seen)
        self._self.settle(self.rows, self._fixed_columns or self._seen)
        self._fit_encoder(0)

    def _fit_encoder(self, wide: int) -> None:
        needed = max(wide, int(self._encoder_lengths[: self.rows].max(initial=0)))
        columns = min(_fitting(self._cross.columns, needed, FEWEST_ENCODER_COLUMNS), self._most_encoder_columns)
        if columns != self._cross.columns:
            self._resize_mask(columns)
        self._cross.settle(self.rows, columns)

    def _move_row(self, source: int, to: int) -> None:
        self._self.copy_rows([source], [to])
        self._cross.copy_rows([source], [to])
        super()._move_row(source, to)

    def _copy_written(self, source: Sequence[int], to: Sequence[int]) -> None:
        self._self.copy_rows(source, to)


def _fitting(size: int, needed: int, fewest: int) -> int:
    """A power of two for ``needed``: ``size``, where that is enough and not more than twice as much."""
    tight = power_of_two(max(needed, fewest))
    return size if tight <= size <= 2 * tight else tight


def power_of_two(size: int) -> int:
    """The least one that is not below ``size``."""
    return 1 << (size - 1).bit_length()
