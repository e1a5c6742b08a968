"""Prompt text to token ids and back, with the `tokenizers` library alone.

Shape letters: ``B`` rows, ``L`` tokens.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

Ids = npt.NDArray[np.int64]

BUCKETS = (*range(16, 64, 8), *range(64, 128, 16), *range(128, 256, 32), *range(256, 513, 64))
"""Rows are padded to one of these lengths, so that requests of similar length have one shape and batch. They are close
together, because an encoder's time grows with every token, real or not."""


@dataclass(frozen=True)
class TokenRows:
    """Padded token ids of some texts."""

    ids_BL: Ids
    mask_BL: Ids
    truncated_B: npt.NDArray[np.bool_]


class TextTokenizer:
    """A tokenizer file with the length that its model can read."""

    def __init__(self, path: Path, max_tokens: int, pad_id: int) -> None:
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._max_tokens, self._pad_id = max_tokens, pad_id

    def encode(self, texts: list[str]) -> TokenRows:
        """Token ids with special tokens, cut at the model's length, padded to a bucket."""
        encodings = self._tokenizer.encode_batch(texts)
        longest = max(len(e.ids) for e in encodings)
        width = min(next((b for b in BUCKETS if b >= longest), longest), max(self._max_tokens, longest))
        ids = np.full((len(texts), width), self._pad_id, dtype=np.int64)
        mask = np.zeros((len(texts), width), dtype=np.int64)
        for row, encoding in enumerate(encodings):
            ids[row, : len(encoding.ids)] = encoding.ids
            mask[row, : len(encoding.ids)] = 1
        return TokenRows(ids, mask, np.array([bool(e.overflowing) for e in encodings]))


class Detokenizer:
    """Turns the token ids of one tokenizer into text."""

    def __init__(self, path: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(path))

    def decode(self, ids: list[int]) -> str:
        """The whole text, special tokens left out."""
        return self._tokenizer.decode(ids, skip_special_tokens=True)

    def encode(self, text: str, most: int) -> list[int]:
        """The first ``most`` token ids of a text, without special tokens."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids[:most]
        return ids

    def stream(self) -> "TextStream":
        """A new stream of pieces."""
        return TextStream(self._tokenizer)


class TextStream:
    """Text piece by piece while tokens arrive; a piece never ends inside a character."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._stream = tokenizer, DecodeStream(skip_special_tokens=True)
        self.text = ""

    def push(self, token: int) -> str:
        """The text that this token completes; empty while a character is incomplete."""
        piece = self._stream.step(self._tokenizer, token) or ""
        self.text += piece
        return piece
