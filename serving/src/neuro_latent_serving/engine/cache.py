"""The rows that decode together, and their keys and values.

The self-attention cache is right-aligned: the newest token of every row is the last column. A row that joined later
has a masked hole at its start; T5's position bias depends on distances only, so rows of any age can share a step.

Shape letters: ``B`` rows, ``Q`` encoder tokens, ``T`` cached target tokens, ``N`` heads, ``H`` head width.
"""

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from neuro_latent_serving.engine.decoder import Decoder, Floats, Ids


def _to_ort(array: Floats) -> ort.OrtValue:
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))


class RowCache:
    """Keys and values of the rows in flight; its tensors are copied only when rows join or leave."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._clear()

    def _clear(self) -> None:
        empty = np.zeros((0, self._decoder.heads, 0, self._decoder.head_width), dtype=np.float32)
        self.self_cache = [_to_ort(empty) for _ in range(self._decoder.cache_tensors)]
        self.cross_cache = [_to_ort(empty) for _ in range(self._decoder.cache_tensors)]
        self.encoder_mask_BQ: Ids = np.zeros((0, 0), dtype=np.int64)
        self.lengths_B: Ids = np.zeros(0, dtype=np.int64)
        """Cached tokens of each row."""

    @property
    def rows(self) -> int:
        """How many rows are in flight."""
        return len(self.lengths_B)

    @property
    def columns(self) -> int:
        """Columns of the self-attention cache: the length of the oldest row."""
        return int(self.lengths_B.max(initial=0))

    def self_mask(self) -> Ids:
        """1 where a column holds a token of the row, the new token's column included: int64 [B, T+1]."""
        column = np.arange(self.columns + 1)
        mask: Ids = (column >= self.columns - self.lengths_B[:, None]).astype(np.int64)
        return mask

    def join(self, cross: list[Floats], encoder_mask_Q: Ids, copies: int) -> None:
        """Add ``copies`` rows that share one prompt, with nothing decoded yet."""
        if not self.rows:
            self._clear()
        wide = max(self.encoder_mask_BQ.shape[1], len(encoder_mask_Q))
        new_mask = np.repeat(_pad_axis(encoder_mask_Q[None], wide, 1), copies, axis=0)
        self.encoder_mask_BQ = np.concatenate([_pad_axis(self.encoder_mask_BQ, wide, 1), new_mask])
        for i, tensor in enumerate(cross):
            old = _pad_axis(self.cross_cache[i].numpy(), wide, 2)
            new = np.repeat(_pad_axis(tensor, wide, 2), copies, axis=0)
            self.cross_cache[i] = _to_ort(np.concatenate([old, new]))
        shape = (copies, self._decoder.heads, self.columns, self._decoder.head_width)
        fresh = np.zeros(shape, dtype=np.float32)
        self.self_cache = [_to_ort(np.concatenate([t.numpy(), fresh])) for t in self.self_cache]
        self.lengths_B = np.concatenate([self.lengths_B, np.zeros(copies, dtype=np.int64)])

    def advance(self, self_cache: list[ort.OrtValue]) -> None:
        """Take the grown cache of a step."""
        self.self_cache = self_cache
        self.lengths_B = self.lengths_B + 1

    def keep(self, rows: npt.NDArray[np.intp]) -> None:
        """Drop all rows but these, and the columns that no row needs any more."""
        if len(rows) == self.rows:
            return
        if not len(rows):
            self._clear()
            return
        before = self.columns
        self.lengths_B = self.lengths_B[rows]
        unused = before - self.columns
        self.self_cache = [_to_ort(t.numpy()[rows, :, unused:]) for t in self.self_cache]
        mask = self.encoder_mask_BQ[rows]
        wide = int(np.flatnonzero(mask.any(axis=0)).max(initial=0)) + 1
        self.encoder_mask_BQ = mask[:, :wide]
        self.cross_cache = [_to_ort(t.numpy()[rows, :, :wide]) for t in self.cross_cache]


def _pad_axis(array: npt.NDArray[np.generic], size: int, axis: int) -> npt.NDArray[np.generic]:
    missing = size - array.shape[axis]
    if not missing:
        return array
    return np.pad(array, [(0, missing if i == axis else 0) for i in range(array.ndim)])
