"""Checkpoints of pre-training -> backbones in hub format, in float16."""

from pathlib import Path

import torch
from tokenizers import Tokenizer

from neuro_latent_trainer.pretrain import models, tokenizer


def publish_backbones(work: Path, output: Path) -> list[str]:
    """Write ``output/encoder`` and ``output/generator``, each where its checkpoint exists; returns their paths.

    Raises:
        FileNotFoundError: ``work`` holds no checkpoint.
    """
    written = []
    if (checkpoint := work / "encoder" / "checkpoint.pt").exists():
        text = Tokenizer.from_file(str(work / "encoder_tokenizer.json"))
        encoder = models.small_encoder(text.get_vocab_size())
        encoder.load_state_dict(torch.load(checkpoint, weights_only=True, map_location="cpu")["model"])
        encoder.roberta.half().save_pretrained(output / "encoder")
        tokenizer.save_encoder_tokenizer(text, output / "encoder", models.ENCODER_TOKENS)
        written.append(str(output / "encoder"))
    if (checkpoint := work / "generator" / "checkpoint.pt").exists():
        text = Tokenizer.from_file(str(work / "generator_tokenizer.json"))
        generator = models.small_generator(text.get_vocab_size())
        generator.load_state_dict(torch.load(checkpoint, weights_only=True, map_location="cpu")["model"])
        generator.half().save_pretrained(output / "generator")
        tokenizer.save_generator_tokenizer(text, output / "generator")
        written.append(str(output / "generator"))
    if not written:
        raise FileNotFoundError(f"no checkpoint in {work}: run `neuro-latent pretrain generator --work {work}` first")
    return written
