"""What is done to random weights, and what is read of a repository."""

from pathlib import Path

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from neuro_latent_benchmarks import hardware, pipeline, report, shapes, weights
from neuro_latent_benchmarks.statistics import copied_share

ROOT = Path(__file__).parents[3]


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


def test_parameters_of_a_model_are_read_from_its_config() -> None:
    found = pipeline.parameters(ROOT / "model_repository", "t5_decoder")
    assert found["slots"].isdigit()
    assert found["eos_id"] == "${eos_id}"
    with pytest.raises(report.BenchError, match=r"no nothing/config\.pbtxt"):
        pipeline.parameters(ROOT / "model_repository", "nothing")


def test_an_unknown_shape_is_refused() -> None:
    with pytest.raises(report.BenchError, match="known are t5-small, embedded, tiny"):
        shapes.prepare("huge", "lively", print)


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("NEURO_LATENT_CACHE", raising=False)
    assert shapes.cache_folder() == tmp_path / "neuro-latent"
    monkeypatch.setenv("NEURO_LATENT_CACHE", str(tmp_path / "mine"))
    assert shapes.cache_folder() == tmp_path / "mine"


def test_a_heading_tells_machine_and_versions(capsys: pytest.CaptureFixture[str]) -> None:
    found = report.heading("decode", {"rounds": 3})
    assert found["hardware"]["cores"] >= 1
    assert found["hardware"]["cpu"]
    assert found["versions"]["onnxruntime"][0].isdigit()
    assert found["settings"] == {"rounds": 3}
    assert hardware.hardware()["memory_gib"] > 0
    captured = capsys.readouterr()
    assert captured.out == ""
