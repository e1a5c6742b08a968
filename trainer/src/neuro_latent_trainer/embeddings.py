"""Frozen-encoder embeddings on disk: every text is encoded once per encoder."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

KEY_BYTES = 32


class EmbeddingCache:
    """Append-only store of embeddings, keyed by encoder and text.

    ``keys.bin`` holds the SHA-256 of each text, ``vectors.f32`` the float32 rows in the same order. The folder is
    named after the encoder's fingerprint and pooling, so vectors of different encoders never mix. An interrupted
    append leaves at most one incomplete tail, which is cut off when the cache is opened.
    """

    def __init__(self, root: Path, encoder_fingerprint: str, pooling: str, width: int) -> None:
        self.folder = root / f"{encoder_fingerprint[:16]}-{pooling}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.width = width
        self._keys_path, self._vectors_path = self.folder / "keys.bin", self.folder / "vectors.f32"
        row_bytes = {self._keys_path: KEY_BYTES, self._vectors_path: 4 * width}
        for path in row_bytes:
            path.touch()
        rows = min(path.stat().st_size // size for path, size in row_bytes.items())
        for path, size in row_bytes.items():
            if path.stat().st_size != rows * size:
                os.truncate(path, rows * size)
        keys = self._keys_path.read_bytes()
        self._row = {keys[i * KEY_BYTES : (i + 1) * KEY_BYTES]: i for i in range(rows)}

    @staticmethod
    def _key(text: str) -> bytes:
        return hashlib.sha256(text.encode()).digest()

    def missing(self, texts: list[str]) -> list[str]:
        """The distinct texts that are not in the cache yet, shortest first."""
        return sorted({t for t in texts if self._key(t) not in self._row}, key=len)

    def fill(
        self,
        texts: list[str],
        embed: Callable[[list[str]], Tensor],
        batch_size: int = 64,
        progress: Callable[[int], None] = lambda n: None,
    ) -> None:
        """Encode what is missing, in batches of similar length; ``progress`` is told how many were done."""
        missing = self.missing(texts)
        with self._keys_path.open("ab") as keys, self._vectors_path.open("ab") as vectors:
            for start in range(0, len(missing), batch_size):
                batch = missing[start : start + batch_size]
                rows = embed(batch).float().cpu().numpy()
                vectors.write(np.ascontiguousarray(rows).tobytes())
                vectors.flush()
                for text in batch:
                    self._row[self._key(text)] = len(self._row)
                    keys.write(self._key(text))
                keys.flush()
                progress(len(batch))

    def get(self, texts: list[str]) -> Tensor:
        """Embeddings of cached texts, float32 [N, E].

        Raises:
            KeyError: a text was never encoded.
        """
        if not texts:
            return torch.empty(0, self.width)
        rows = np.array([self._row[self._key(t)] for t in texts])
        table = np.memmap(self._vectors_path, dtype=np.float32, mode="r").reshape(-1, self.width)
        return torch.from_numpy(table[rows].copy())
