"""Prompt text to token ids and back, with the `tokenizers` library alone.

Shape letters: ``B`` rows, ``L`` tokens.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from neuro_latent_core.limits import BUCKETS
from neuro_latent_core.tokens import both_ends, without_control

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TokenRows:
    """Padded token ids of some texts."""

    ids_BL: Ids
    mask_BL: Ids
    truncated_B: npt.NDArray[np.bool_]


class TextTokenizer:
    """A tokenizer file with the length that its model can read. No text is read as a special token.

    Args:
        path: ``tokenizer.json``.
        max_tokens: what the model reads, the special tokens included.
        pad_id: of the padding.
        prefix: text that the model reads before every other.
    """

    def __init__(self, path: Path, max_tokens: int, pad_id: int, prefix: str = "") -> None:
        self._tokenizer = _open(path)
        self._before, self._after = _special_ends(self._tokenizer)
        self._added = self._tokenizer.get_added_tokens_decoder()
        self._room = max(1, max_tokens - len(self._before) - len(self._after))
        self._max_tokens, self._pad_id, self._prefix = max_tokens, pad_id, prefix

    def encode(self, texts: list[str]) -> TokenRows:
        """Token ids with special tokens, padded to a bucket.

        Of a text that is longer than the model's length the beginning and the end are kept, half of the room each.
        """
        # Not `encode_batch`, which wakes threads of its own.
        encodings = [self._tokenizer.encode(self._prefix + text, add_special_tokens=False) for text in texts]
        bare = [without_control(encoding.ids, self._added) for encoding in encodings]
        rows = [[*self._before, *both_ends(ids, self._room), *self._after] for ids in bare]
        longest = max(map(len, rows))
        width = min(next((b for b in BUCKETS if b >= longest), longest), max(self._max_tokens, longest))
        ids = np.full((len(texts), width), self._pad_id, dtype=np.int64)
        mask = np.zeros((len(texts), width), dtype=np.int64)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
            mask[number, : len(row)] = 1
        return TokenRows(ids, mask, np.array([len(row) > self._room for row in bare]))


def _open(path: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True  # </s> in a prompt is text
    return tokenizer


def _special_ends(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and behind a text."""
    mark, framed = tokenizer.encode("a", add_special_tokens=False).ids, tokenizer.encode("a").ids
    at = next(i for i in range(len(framed)) if framed[i : i + len(mark)] == mark)
    return framed[:at], framed[at + len(mark) :]


class Detokenizer:
    """Turns the token ids of one tokenizer into text."""

    def __init__(self, path: Path) -> None:
        self._tokenizer = _open(path)

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
