"""The cache of embeddings on disk."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuro_latent_trainer.embeddings import KEY_BYTES, EmbeddingCache

WIDTH = 3
TEXTS = ["sort a list", "a", "write a poem about the sea", "überall: 漢字"]


class CountingEncoder:
    """Embeds a text as numbers that depend on it alone, and counts how often it was asked."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor, self.asked = factor, dict.fromkeys(TEXTS, 0)

    def __call__(self, texts: list[str]) -> torch.Tensor:
        for text in texts:
            self.asked[text] = self.asked.get(text, 0) + 1
        return torch.stack([self.row(text) for text in texts])

    def row(self, text: str) -> torch.Tensor:
        return torch.tensor([len(text), sum(map(ord, text)), 0.25]) * self.factor


def open_cache(root: Path, fingerprint: str = "f" * 64, pooling: str = "mean") -> EmbeddingCache:
    return EmbeddingCache(root, fingerprint, pooling, WIDTH)


def test_texts_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    encoder, cache = CountingEncoder(), open_cache(tmp_path)
    cache.fill(TEXTS, encoder, batch_size=2)
    asked = [TEXTS[2], TEXTS[0], TEXTS[2]]
    assert torch.equal(cache.get(asked), torch.stack([encoder.row(t) for t in asked]))
    assert cache.get([]).shape == (0, WIDTH)


def test_every_text_is_encoded_once_even_over_several_runs(tmp_path: Path) -> None:
    encoder = CountingEncoder()
    done: list[int] = []
    open_cache(tmp_path).fill(TEXTS[:2] * 3, encoder, batch_size=1, progress=done.append)
    assert done == [1, 1]
    again = open_cache(tmp_path)
    assert again.missing(TEXTS) == sorted(TEXTS[2:], key=len)
    again.fill(TEXTS * 2, encoder)
    assert encoder.asked == dict.fromkeys(TEXTS, 1)
    assert open_cache(tmp_path).missing(TEXTS) == []


def test_a_text_that_was_never_encoded_is_a_key_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        open_cache(tmp_path).get(["unknown"])


def test_encoders_and_poolings_do_not_mix(tmp_path: Path) -> None:
    caches = [open_cache(tmp_path), open_cache(tmp_path, "e" * 64), open_cache(tmp_path, pooling="cls")]
    for factor, cache in enumerate(caches, start=1):
        cache.fill(TEXTS, CountingEncoder(factor))
    for factor, cache in enumerate(caches, start=1):
        assert torch.equal(cache.get(TEXTS[:1])[0], CountingEncoder(factor).row(TEXTS[0]))


@given(keys=st.integers(0, len(TEXTS) * KEY_BYTES), vectors=st.integers(0, len(TEXTS) * 4 * WIDTH))
@settings(max_examples=40)
def test_a_torn_tail_is_cut_off_and_encoded_again(
    tmp_path_factory: pytest.TempPathFactory, keys: int, vectors: int
) -> None:
    root = tmp_path_factory.mktemp("cache")
    encoder, cache = CountingEncoder(), open_cache(root)
    cache.fill(TEXTS, encoder)
    for name, size in (("keys.bin", keys), ("vectors.f32", vectors)):
        with (cache.folder / name).open("r+b") as file:
            file.truncate(size)
    again = open_cache(root)
    whole = min(keys // KEY_BYTES, vectors // (4 * WIDTH))
    assert len(again.missing(TEXTS)) == len(TEXTS) - whole
    again.fill(TEXTS, encoder)
    assert torch.equal(again.get(TEXTS), torch.stack([encoder.row(t) for t in TEXTS]))
    assert (again.folder / "vectors.f32").stat().st_size == len(TEXTS) * 4 * WIDTH


def test_an_encoder_that_fails_leaves_a_cache_that_can_be_filled(tmp_path: Path) -> None:
    encoder = CountingEncoder()

    def failing(texts: list[str]) -> torch.Tensor:
        if len(encoder.asked) and TEXTS[0] in texts:
            raise RuntimeError("out of memory")
        return encoder(texts)

    with pytest.raises(RuntimeError, match="out of memory"):
        open_cache(tmp_path).fill(TEXTS, failing, batch_size=1)
    again = open_cache(tmp_path)
    again.fill(TEXTS, encoder)
    assert torch.equal(again.get(TEXTS), torch.stack([encoder.row(t) for t in TEXTS]))
