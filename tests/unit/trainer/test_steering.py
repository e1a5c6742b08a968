"""Steered pre-training: what the generator sees of a text's embedding, and how an adapter starts from it."""

import json
import lzma
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from neuro_latent_trainer import steering
from neuro_latent_trainer.adapter import AdapterConfig, ResidualProjector, Standardizer
from neuro_latent_trainer.backbones import load_encoder, load_generator
from neuro_latent_trainer.model import PromptOptimizer
from neuro_latent_trainer.pretrain import cli
from neuro_latent_trainer.pretrain.loop import LoopConfig, make_optimizers
from neuro_latent_trainer.pretrain.steering import SteeredGenerator
from neuro_latent_trainer.steering import SteeringConfig
from tests import tiny
from tests.conftest import Pair


@pytest.fixture
def steered(pair: Pair) -> SteeredGenerator:
    generator, encoder = load_generator(str(pair.generator)), load_encoder(str(pair.encoder))
    torch.manual_seed(0)
    config = AdapterConfig(encoder.width, generator.width, bottleneck_width=8, soft_prompt_tokens=5)
    return SteeredGenerator(generator.model.requires_grad_(True), config, [7, 8, 9])


def batch(rows: int, steered: list[int]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "input_ids": torch.randint(3, 90, (rows, 6), generator=generator),
        "attention_mask": torch.ones(rows, 6, dtype=torch.int64),
        "labels": torch.randint(3, 90, (rows, 4), generator=generator),
        "steered": torch.tensor(steered),
    }


def test_a_guess_has_the_spread_of_a_best_guess(steered: SteeredGenerator) -> None:
    """With a share r explained its variance is r, and so is its covariance with the embedding: 1/2 on average."""
    torch.manual_seed(2)
    embedding = torch.randn(20_000, steered.standardizer.mean.numel())
    guess = steered.guess(embedding)
    assert guess.var().item() == pytest.approx(0.5, abs=0.02)
    assert (guess * embedding).mean().item() == pytest.approx(0.5, abs=0.02)


def test_rows_that_are_not_steered_do_not_see_their_soft_prompts(steered: SteeredGenerator) -> None:
    given, width = batch(2, [1, 0]), steered.standardizer.mean.numel()
    with torch.no_grad():
        first, second = (steered(given, torch.randn(2, width)) for _ in range(2))
    assert not torch.allclose(first[0], second[0])
    torch.testing.assert_close(first[1], second[1])


def test_the_loss_reaches_generator_and_projector(steered: SteeredGenerator) -> None:
    width = steered.standardizer.mean.numel()
    steered(batch(3, [1, 1, 0]), torch.randn(3, width)).square().mean().backward()
    for name in ("projector.down.weight", "projector.base", "projector.scale", "t5.shared.weight"):
        gradient = steered.get_parameter(name).grad
        assert gradient is not None, name
        assert gradient.abs().sum() > 0, name


def test_only_matrices_of_layers_are_orthogonalised(steered: SteeredGenerator) -> None:
    names = {id(parameter): name for name, parameter in steered.named_parameters()}
    muon, adam = make_optimizers(steered, LoopConfig())
    matrices, others = (
        {names[id(p)] for group in optimizer.param_groups for p in group["params"]} for optimizer in (muon, adam)
    )
    assert {"projector.up.weight", "t5.encoder.block.0.layer.0.SelfAttention.q.weight"} <= matrices
    assert {"projector.base", "projector.scale", "t5.shared.weight", "projector.norm.weight"} <= others
    assert matrices | others == set(names.values())


# From the generator's folder to an adapter ----------------------------------------------------------------------------


def written(folder: Path, encoder: Any, config: AdapterConfig) -> tuple[Standardizer, ResidualProjector]:
    torch.manual_seed(4)
    standardizer, projector = Standardizer(config.encoder_width), ResidualProjector(config)
    standardizer.fit(torch.randn(50, config.encoder_width))
    torch.nn.init.normal_(projector.base)
    steering.write(folder, SteeringConfig.of(config, encoder), standardizer, projector)
    return standardizer, projector


def test_a_fresh_adapter_starts_from_the_generators_projector(tmp_path: Path) -> None:
    encoder_folder, generator_folder = tiny.write_backbones(tmp_path)
    encoder, generator = load_encoder(str(encoder_folder)), load_generator(str(generator_folder))
    config = AdapterConfig(encoder.width, generator.width, bottleneck_width=8)
    assert not PromptOptimizer.create(encoder, generator, config).starts_steered
    standardizer, projector = written(generator_folder, encoder, config)
    model = PromptOptimizer.create(encoder, generator, config)
    assert model.starts_steered
    embedding = torch.randn(3, encoder.width)
    torch.testing.assert_close(
        model.adapter.projector(model.adapter.standardizer(embedding)),
        projector(standardizer(embedding)),
        atol=2e-2,
        rtol=0,
    )


@pytest.mark.parametrize(
    "other", [{"soft_prompt_tokens": 7}, {"bottleneck_width": 4}, {"projector": "dense"}, {"pooling": "cls"}], ids=str
)
def test_an_adapter_of_another_form_starts_without_it(tmp_path: Path, other: dict[str, Any]) -> None:
    encoder_folder, generator_folder = tiny.write_backbones(tmp_path)
    encoder, generator = load_encoder(str(encoder_folder)), load_generator(str(generator_folder))
    written(generator_folder, encoder, AdapterConfig(encoder.width, generator.width, bottleneck_width=8))
    config = AdapterConfig(encoder.width, generator.width, **{"bottleneck_width": 8, **other})
    assert not PromptOptimizer.create(encoder, generator, config).starts_steered


def test_another_encoder_starts_without_it(tmp_path: Path) -> None:
    encoder_folder, generator_folder = tiny.write_backbones(tmp_path)
    encoder, generator = load_encoder(str(encoder_folder)), load_generator(str(generator_folder))
    config = AdapterConfig(encoder.width, generator.width, bottleneck_width=8)
    written(generator_folder, encoder, config)
    with torch.no_grad():
        next(encoder.model.parameters()).add_(1)
    other = replace(encoder)  # a fingerprint is taken once
    assert not PromptOptimizer.create(other, generator, config).starts_steered


# The commands ---------------------------------------------------------------------------------------------------------


def test_the_commands_make_a_pair_whose_adapter_starts_steered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "HELD_OUT_BATCHES", 1)
    monkeypatch.setattr(cli, "STANDARDIZER_BATCHES", 1)
    monkeypatch.setattr(cli.models, "VOCABULARY", tiny.VOCABULARY)
    corpus, work, output = tmp_path / "corpus.jsonl.xz", tmp_path / "work", tmp_path / "pair"
    with lzma.open(corpus, "wt", encoding="utf-8") as file:
        for text in tiny.sample_texts() * 2:
            file.write(json.dumps({"text": text, "kind": "prompt"}) + "\n")

    def run(*arguments: object) -> str:
        result = CliRunner().invoke(cli.app, [str(a) for a in arguments])
        assert result.exit_code == 0, result.output
        return result.output

    run("prepare", "--corpus", corpus, "--work", work)
    refused = CliRunner().invoke(cli.app, ["generator", "--work", str(work)])
    assert refused.exit_code == 2
    assert "pretrain encoder" in refused.output
    for name in ("encoder", "generator"):
        assert json.loads(run(name, "--work", work, "--minutes", 0.01).splitlines()[-1])["steps"] > 0
    run("publish", "--work", work, "--output", output)
    encoder, generator = load_encoder(str(output / "encoder")), load_generator(str(output / "generator"))
    model = PromptOptimizer.create(encoder, generator, AdapterConfig(encoder.width, generator.width))
    assert model.starts_steered
    assert len(model.generate(["Create a function"], 5)) == 1
