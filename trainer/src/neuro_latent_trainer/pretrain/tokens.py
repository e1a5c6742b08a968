"""The corpus as token ids on disk: written once, memory-mapped afterwards."""

import itertools
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from neuro_latent_trainer.jsonl import parse_json_line
from neuro_latent_trainer.pretrain.requests import asks_for_code, is_request, request_of

KINDS = ("prompt", "instruction_response", "prose", "qa", "enhanced", "request", "everyday")
"""Document kinds of the corpus; ``enhanced``, the target texts of a prompt-pair file; ``request``, what documents of
the corpus begin with when they are instructions, and users' raw prompts (never beside their enhanced prompts);
``everyday``, pairs of a grammar (``everyday.py``): a raw prompt, a line break, its rewrite."""

USERS = "oneprompted"
"""Pairs of these sources have raw prompts as users typed them, on any subject."""

HELD_OUT_EVERY = 200
"""Every 200th document is held out and never trained on."""


@dataclass(frozen=True)
class TokenStore:
    """Documents as one flat array of generator token ids.

    ``ids`` uint16 [total], ``starts`` int64 [documents + 1], ``kinds`` uint8 [documents] (index into KINDS).
    """

    ids: np.ndarray
    starts: np.ndarray
    kinds: np.ndarray

    def document(self, index: int) -> np.ndarray:
        """Token ids of one document."""
        return self.ids[self.starts[index] : self.starts[index + 1]]

    def split(self) -> tuple[np.ndarray, np.ndarray]:
        """Indices of training and of held-out documents."""
        index = np.arange(len(self.kinds))
        held_out = index % HELD_OUT_EVERY == 0
        return index[~held_out], index[held_out]


def _lines(path: Path) -> Iterator[str]:
    opener = lzma.open if path.suffix == ".xz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        yield from file


def read_requests(corpus: Path, pairs: Path | None = None) -> Iterator[str]:
    """Yield the requests that documents of the corpus begin with, and users' raw prompts of ``pairs``, each once.

    Two of three requests in the corpus are for code; every second of those is left out.
    """
    seen: set[str] = set()
    for_code = 0
    for request in itertools.chain(_corpus_requests(corpus), _user_prompts(pairs) if pairs else ()):
        if request in seen:
            continue
        seen.add(request)
        for_code += asks_for_code(request)
        if not asks_for_code(request) or for_code % 2:
            yield request


def _corpus_requests(corpus: Path) -> Iterator[str]:
    for number, line in enumerate(_lines(corpus), start=1):
        request = request_of(parse_json_line(line, corpus, number)["text"])
        if request is not None:
            yield request


def _user_prompts(pairs: Path) -> Iterator[str]:
    for number, line in enumerate(_lines(pairs), start=1):
        row = parse_json_line(line, pairs, number)
        if str(row.get("source", "")).startswith(USERS) and is_request(row["raw_prompt"]):
            yield row["raw_prompt"]


def read_documents(corpus: Path, pairs: Path | None) -> Iterator[tuple[str, int]]:
    """Yield ``(text, kind index)`` of every corpus document, then the enhanced prompts of ``pairs``.

    Only the target side of the pairs is read: the backbones never see which raw prompt belongs to it.
    """
    for number, line in enumerate(_lines(corpus), start=1):
        row: dict[str, Any] = parse_json_line(line, corpus, number)
        yield row["text"], KINDS.index(row["kind"])
    if pairs is not None:
        for number, line in enumerate(_lines(pairs), start=1):
            yield parse_json_line(line, pairs, number)["enhanced_prompt"], KINDS.index("enhanced")


def write_token_store(documents: Iterator[tuple[str, int]], tokenizer: Tokenizer, folder: Path) -> None:
    """Tokenize ``documents`` (without special tokens) into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    chunks: list[np.ndarray] = []
    lengths: list[int] = []
    kinds: list[int] = []
    batch: list[tuple[str, int]] = []

    def flush() -> None:
        for encoding, (_, kind) in zip(
            tokenizer.encode_batch_fast([t for t, _ in batch], add_special_tokens=False), batch, strict=True
        ):
            chunks.append(np.asarray(encoding.ids, dtype=np.uint16))
            lengths.append(len(encoding.ids))
            kinds.append(kind)
        batch.clear()

    for document in documents:
        batch.append(document)
        if len(batch) == 1024:
            flush()
    flush()
    np.save(folder / "ids.npy", np.concatenate(chunks))
    np.save(folder / "starts.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    np.save(folder / "kinds.npy", np.asarray(kinds, dtype=np.uint8))


def open_token_store(folder: Path) -> TokenStore:
    """Memory-map what :func:`write_token_store` wrote."""
    return TokenStore(
        ids=np.load(folder / "ids.npy", mmap_mode="r"),
        starts=np.load(folder / "starts.npy"),
        kinds=np.load(folder / "kinds.npy"),
    )
