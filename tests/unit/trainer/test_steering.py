"""An adapter beside the generator's weights, and the adapters that start from it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from neuro_latent_trainer import steering
from neuro_latent_trainer.adapter import Adapter, AdapterConfig
from neuro_latent_trainer.backbones import load_encoder, load_generator
from neuro_latent_trainer.model import PromptOptimizer
from tests import tiny

SETTINGS: dict[str, Any] = {"bottleneck_width": 8, "form": "complement"}


def written(folder: Path, encoder: Any, config: AdapterConfig) -> Adapter:
    torch.manual_seed(4)
    adapter = Adapter(config).eval()
    adapter.standardizer.fit(torch.randn(50, config.encoder_width))
    steering.write(folder, encoder, adapter)
    return adapter


def test_a_fresh_adapter_starts_from_the_generators(tmp_path: Path) -> None:
    encoder_folder, generator_folder = tiny.write_backbones(tmp_path)
    encoder, generator = load_encoder(str(encoder_folder)), load_generator(str(generator_folder))
    config = AdapterConfig(encoder_width=encoder.width, generator_width=generator.width, **SETTINGS)
    assert not PromptOptimizer.create(encoder, generator, config).starts_steered
    adapter = written(generator_folder, encoder, config)
    model = PromptOptimizer.create(encoder, generator, config).eval()
    assert model.starts_steered
    embedding = torch.randn(3, encoder.width)
    torch.testing.assert_close(model.adapter(embedding), adapter(embedding), atol=2e-2, rtol=0)
    assert not PromptOptimizer.create(encoder, generator, config, steered=False).starts_steered


@pytest.mark.parametrize(
    "other",
    [
        {"soft_prompt_tokens": 7},
        {"bottleneck_width": 4},
        {"black_box_width": 32},
        {"projector": "dense"},
        {"pooling": "cls"},
        {"form": "rewrite"},
    ],
    ids=str,
)
def test_an_adapter_of_another_shape_starts_without_it(tmp_path: Path, other: dict[str, Any]) -> None:
    encoder_folder, generator_folder = tiny.write_backbones(tmp_path)
    encoder, generator = load_encoder(str(encoder_folder)), load_generator(str(generator_folder))
    written(
        generator_folder,
        encoder,
        AdapterConfig(encoder_width=encoder.width, generator_width=generator.width, **SETTINGS),
    )
    config = AdapterConfig(encoder_width=encoder.width, generator_width=generator.width, **{**SETTINGS, **other})
    assert not PromptOptimizer.create(encoder, generator, config).starts_steered


def test_another_encoder_starts_without_it(tmp_path: Path) -> None:
    encoder_folder, generator_folder = tiny.write_backbones(tmp_path)
    encoder, generator = load_encoder(str(encoder_folder)), load_generator(str(generator_folder))
    config = AdapterConfig(encoder_width=encoder.width, generator_width=generator.width, **SETTINGS)
    written(generator_folder, encoder, config)
    with torch.no_grad():
        next(encoder.model.parameters()).add_(1)
    other = replace(encoder)  # a fingerprint is taken once
    assert not PromptOptimizer.create(other, generator, config).starts_steered
