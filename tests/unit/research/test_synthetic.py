"""Random weights that behave, and the shapes they have."""

from pathlib import Path

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from neuro_latent_benchmarks.report import BenchError
from research.baselines.measures import copied_share
from research.synthetic import shapes, weights


@pytest.fixture(scope="module")
def t5() -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(
        T5Config(vocab_size=900, d_model=128, d_kv=32, d_ff=128, num_layers=2, num_heads=4, decoder_start_token_id=0)
    )
    weights.enliven(model)
    weights.wire_copying(model, gain=8)
    weights.mute_end(model)
    return model.eval()


def test_wired_weights_copy_their_prompt_and_never_end(t5: T5ForConditionalGeneration) -> None:
    shares = []
    for seed in range(4):
        source = torch.randperm(800, generator=torch.Generator().manual_seed(seed))[:30] + 50
        source[-1] = 1
        text = t5.generate(source[None], max_new_tokens=40, do_sample=False)[0, 1:].tolist()
        assert len(text) == 40
        shares.append(copied_share(source.tolist(), text))
    assert sum(shares) / len(shares) > 0.6


def test_heads_that_are_too_narrow_are_refused() -> None:
    narrow = T5ForConditionalGeneration(T5Config(vocab_size=60, d_model=64, d_kv=8, d_ff=16, num_layers=1, num_heads=2))
    with pytest.raises(ValueError, match="d_model"):
        weights.wire_copying(narrow)


def test_an_unknown_shape_is_refused() -> None:
    with pytest.raises(BenchError, match="known are t5-small, embedded, tiny"):
        shapes.prepare("huge", "lively", print)


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("NEURO_LATENT_CACHE", raising=False)
    assert shapes.cache_folder() == tmp_path / "neuro-latent"
    monkeypatch.setenv("NEURO_LATENT_CACHE", str(tmp_path / "mine"))
    assert shapes.cache_folder() == tmp_path / "mine"
