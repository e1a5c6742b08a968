"""Which rows decode together: how long each is, and which take the places of those that leave.

Shape letters: ``B`` rows in flight, ``Q`` encoder tokens.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


class Rows:
    """The bookkeeping of a cache of up to ``slots`` rows; where their keys and values lie is its subclasses' matter."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._all_lengths = np.zeros(slots, dtype=np.int64)
        self._encoder_lengths = np.zeros(slots, dtype=np.int64)
        self._mask = np.zeros((slots, 0), dtype=np.int64)
        self.rows = 0

    @property
    def lengths_B(self) -> Ids:
        """How many columns of each row count; the engine adds to it after a step."""
        return self._all_lengths[: self.rows]

    def leave(self, gone: Sequence[int]) -> dict[int, int]:
        """Free rows; returns which rows were moved: old number -> new number."""
        moved: dict[int, int] = {}
        holes = sorted(gone)
        while holes:
            last = self.rows - 1
            if last == holes[-1]:
                holes.pop()
            else:  # the lowest hole first, so that no row moves twice
                moved[last] = holes.pop(0)
                self._move_row(last, moved[last])
            self.rows = last
        return moved

    def reorder(self, rows: Sequence[int], parents: Sequence[int]) -> None:
        """Row ``rows[i]`` goes on with what row ``parents[i]`` holds; all belong to one request."""
        pairs = [(row, parent) for row, parent in zip(rows, parents, strict=True) if row != parent]
        if pairs:
            to, source = (list(side) for side in zip(*pairs, strict=True))
            self._copy_written(source, to)
            self._all_lengths[to] = self._all_lengths[source]

    def _free(self, copies: int) -> range:
        """The next ``copies`` free rows; a ValueError where there are not so many."""
        new = range(self.rows, self.rows + copies)
        if new.stop > self._slots:
            raise ValueError(f"{copies} more rows do not fit: {self.rows} of {self._slots} are taken")
        return new

    def _take(self, new: range, encoder_mask_Q: Ids) -> None:
        """Count rows in, with nothing written yet; last of a join, so that one that fails has taken no row."""
        wide = len(encoder_mask_Q)
        self._mask[new.start : new.stop] = 0
        self._mask[new.start : new.stop, :wide] = encoder_mask_Q
        self._all_lengths[new.start : new.stop] = 0
        self._encoder_lengths[new.start : new.stop] = wide
        self.rows = new.stop

    def _resize_mask(self, columns: int) -> None:
        mask = np.zeros((self._slots, columns), dtype=np.int64)
        kept = min(columns, self._mask.shape[1])
        mask[:, :kept] = self._mask[:, :kept]
        self._mask = mask

    def _move_row(self, source: int, to: int) -> None:
        """All that row ``source`` holds goes to row ``to``."""
        for vector in (self._all_lengths, self._encoder_lengths, self._mask):
            vector[to] = vector[source]

    def _copy_written(self, source: Sequence[int], to: Sequence[int]) -> None:
        """The self-attention keys and values of rows go to others, at once; the lengths follow afterwards."""
        raise NotImplementedError
