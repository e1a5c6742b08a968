"""What was computed lately, bounded by its bytes."""

import hashlib
from collections.abc import Hashable
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache

V = TypeVar("V")
OVERHEAD = 200
"""Bytes of an entry beside its value: key, and its places in the tables."""


class ByteCache(Generic[V]):
    """Values by key; the one that was used longest ago makes room. For one thread.

    Args:
        most_bytes: of all values; 0 keeps none.
    """

    def __init__(self, most_bytes: int) -> None:
        self._entries: LRUCache[Hashable, tuple[V, int]] = LRUCache(most_bytes, getsizeof=lambda entry: entry[1])

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> V | None:
        """The value; None where it is not here."""
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def put(self, key: Hashable, value: V, size: int) -> None:
        """Keep a value of ``size`` bytes, if it fits at all."""
        if size + OVERHEAD <= self._entries.maxsize:
            self._entries[key] = value, size + OVERHEAD


def digest(*parts: bytes | str | npt.NDArray[np.generic]) -> bytes:
    """32 bytes that stand for some values, their types, shapes and order."""
    found = hashlib.blake2b(digest_size=32)
    for part in parts:
        if isinstance(part, np.ndarray):
            head, data = f"{part.dtype} {part.shape} ", part.tobytes()
        else:
            data = part.encode() if isinstance(part, str) else part
            head = f"{type(part).__name__} {len(data)} "
        found.update(head.encode())
        found.update(data)
    return found.digest()
