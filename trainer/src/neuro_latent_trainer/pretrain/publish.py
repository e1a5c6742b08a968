"""Checkpoints of pre-training -> backbones in hub format, in float16."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from neuro_latent_trainer import steering
from neuro_latent_trainer.backbones import load_encoder
from neuro_latent_trainer.pretrain import models, tasks, tokenizer
from neuro_latent_trainer.pretrain.steering import SteeredGenerator, steering_adapter


def publish_backbones(work: Path, output: Path) -> list[str]:
    """Write ``output/encoder`` and ``output/generator``, each where its checkpoint exists; returns their paths.

    The generator's folder also gets the projector that it was steered with (``steering.safetensors``).

    Raises:
        FileNotFoundError: ``work`` holds no checkpoint.
    """
    written = []
    if (checkpoint := work / "encoder" / "checkpoint.pt").exists():
        text = Tokenizer.from_file(str(work / "encoder_tokenizer.json"))
        roberta = models.small_encoder(text.get_vocab_size())
        roberta.load_state_dict(_weights(checkpoint))
        roberta.roberta.half().save_pretrained(output / "encoder")
        tokenizer.save_encoder_tokenizer(text, output / "encoder", models.ENCODER_TOKENS)
        written.append(str(output / "encoder"))
    if (checkpoint := work / "generator" / "checkpoint.pt").exists():
        text = Tokenizer.from_file(str(work / "generator_tokenizer.json"))
        encoder = load_encoder(str(output / "encoder"))
        t5: Any = models.small_generator(text.get_vocab_size())
        config = steering_adapter(encoder.width, t5.config.d_model)
        ids = text.encode(tasks.EXPAND_PROMPT, add_special_tokens=False).ids
        steered = SteeredGenerator(t5, config, ids)
        steered.load_state_dict(_weights(checkpoint))
        t5.half().save_pretrained(output / "generator")
        tokenizer.save_generator_tokenizer(text, output / "generator")
        fits = steering.SteeringConfig.of(config, encoder)
        steering.write(output / "generator", fits, steered.standardizer, steered.projector)
        written.append(str(output / "generator"))
    if not written:
        raise FileNotFoundError(f"no checkpoint in {work}: run `neuro-latent pretrain encoder --work {work}` first")
    return written


def _weights(checkpoint: Path) -> dict[str, Any]:
    weights: dict[str, Any] = torch.load(checkpoint, weights_only=True, map_location="cpu")["model"]
    return weights
