"""The whole model: generation against a hand-written loop, padding, what is frozen."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from neuro_latent_trainer.adapter import Adapter, AdapterConfig
from neuro_latent_trainer.adapter_folder import AdapterError
from neuro_latent_trainer.backbones import fingerprint, load_encoder, load_generator
from neuro_latent_trainer.losses import IGNORE
from neuro_latent_trainer.model import PromptOptimizer
from tests import tiny

PROMPTS = [
    "Create a function",
    "sort",
    "Explain to a beginner how a hash table finds a key, with one example in Python.",
]
LENGTH = 24


@torch.no_grad()
def greedy_without_cache(model: PromptOptimizer, text: str, length: int) -> list[int]:
    """The whole target is computed again for every token."""
    tokens = model.generator.tokenize([text], 512)
    hidden, mask = model.encode(model.embed([text]), tokens["input_ids"], tokens["attention_mask"])
    written: list[int] = []
    while len(written) < length:
        labels = torch.tensor([[*written, IGNORE]])
        token = int(model.generator.logits(hidden, mask, labels)[0, -1].argmax())
        if token == model.generator.eos_id:
            break
        written.append(token)
    return written


def test_generation_is_greedy_decoding(optimizer: PromptOptimizer) -> None:
    rows = optimizer.generate_ids(PROMPTS, LENGTH)
    assert rows == [greedy_without_cache(optimizer, text, LENGTH) for text in PROMPTS]
    assert len(set(map(tuple, rows))) == len(PROMPTS), "the tiny model must write different texts"


def test_padding_does_not_change_the_tokens(optimizer: PromptOptimizer) -> None:
    together = optimizer.generate_ids(PROMPTS, LENGTH)
    assert together == [optimizer.generate_ids([text], LENGTH)[0] for text in PROMPTS]
    assert optimizer.generate_ids(PROMPTS[::-1], LENGTH) == together[::-1]


@pytest.mark.parametrize("length", [1, 5])
def test_the_length_is_the_most_tokens_written(optimizer: PromptOptimizer, length: int) -> None:
    longer = optimizer.generate_ids(PROMPTS, LENGTH)
    assert optimizer.generate_ids(PROMPTS, length) == [row[:length] for row in longer]


def test_several_texts_a_prompt(optimizer: PromptOptimizer) -> None:
    torch.manual_seed(0)
    texts = optimizer.generate(PROMPTS, 8, do_sample=True, num_return_sequences=3)
    assert len(texts) == 9
    assert not any("</s>" in text or "<pad>" in text for text in texts)


def test_only_the_adapter_is_trainable_and_backbones_stay_in_evaluation_mode(optimizer: PromptOptimizer) -> None:
    trainable = {name for name, p in optimizer.named_parameters() if p.requires_grad}
    assert trainable
    assert all(name.startswith("adapter.") for name in trainable)
    try:
        optimizer.train()
        assert optimizer.adapter.training
        assert not any(m.training for m in optimizer.encoder_model.modules())
        assert not any(m.training for m in optimizer.generator_model.modules())
    finally:
        optimizer.eval()


def test_backbones_of_other_widths_are_refused(optimizer: PromptOptimizer) -> None:
    wrong = Adapter(AdapterConfig(encoder_width=optimizer.encoder.width + 1, generator_width=10))
    with pytest.raises(ValueError, match=r"adapter is for widths 33 and 10; the encoder has 32, the generator 24"):
        PromptOptimizer(optimizer.encoder, optimizer.generator, wrong)


def test_teacher_forced_logits_score_the_whole_target_at_once(optimizer: PromptOptimizer) -> None:
    tokens = optimizer.generator.tokenize(PROMPTS[:1], 512)
    hidden, mask = optimizer.encode(optimizer.embed(PROMPTS[:1]), tokens["input_ids"], tokens["attention_mask"])
    (row,) = optimizer.generate_ids(PROMPTS[:1], 6)
    with torch.no_grad():
        logits = optimizer.generator.logits(hidden, mask, torch.tensor([row]))
    assert logits[0].argmax(-1).tolist() == row


@pytest.mark.parametrize("projector", ["residual", "dense"])
def test_a_newer_t5_with_gated_layers_works_as_well(gated_pair: Any, tmp_path: Any, projector: str) -> None:
    folder = tiny.write_adapter(tmp_path / "a", gated_pair.encoder, gated_pair.generator, projector=projector)
    model = PromptOptimizer.from_pretrained(folder)
    assert model.generate_ids(PROMPTS, 8) == [greedy_without_cache(model, text, 8) for text in PROMPTS]


def test_generating_changes_no_frozen_weight(pair: Any, optimizer: PromptOptimizer) -> None:
    optimizer.generate(PROMPTS, 4)
    assert fingerprint(optimizer.encoder_model) == fingerprint(load_encoder(str(pair.encoder)).model)
    assert fingerprint(optimizer.generator_model) == fingerprint(load_generator(str(pair.generator)).model)


def test_an_adapter_refuses_backbones_that_changed_under_their_name(pair: Any, tmp_path: Path) -> None:
    folder = tiny.write_adapter(tmp_path / "adapter", pair.encoder, pair.generator)
    path = folder / "adapter_config.json"
    values = json.loads(path.read_text())
    values["generator"]["sha256"] = "0" * 64
    path.write_text(json.dumps(values))
    with pytest.raises(AdapterError, match=r"other weights of .*generator.* with --generator"):
        PromptOptimizer.from_pretrained(folder)
    assert PromptOptimizer.from_pretrained(folder, generator=str(pair.generator)).generate(["a"], 2)
