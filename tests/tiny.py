"""A tiny random pair of backbones in hub format, with tokenizers learned from the project's own sample prompts."""

import functools
from pathlib import Path

import torch
from transformers import RobertaConfig, RobertaModel, T5Config, T5ForConditionalGeneration

from neuro_latent_trainer import adapter_folder
from neuro_latent_trainer.adapter import AdapterConfig
from neuro_latent_trainer.backbones import load_encoder, load_generator
from neuro_latent_trainer.model import PromptOptimizer
from neuro_latent_trainer.sample import sample_rows
from research.pretrain import tokenizers
from research.synthetic import weights

VOCABULARY = 600
ENCODER_TOKENS = 48


@functools.cache
def sample_texts() -> tuple[str, ...]:
    """Raw prompts and complements of the sample."""
    return tuple(row[name] for row in sample_rows() for name in ("raw_prompt", "complement") if row[name])


def write_backbones(folder: Path, gated: bool = False) -> tuple[Path, Path]:
    """Write ``folder/encoder`` and ``folder/generator``; ``gated`` makes a T5 of the newer kind (v1.1, flan)."""
    generator_tokenizer = tokenizers.generator_tokenizer(sample_texts(), VOCABULARY)
    encoder_tokenizer = tokenizers.encoder_tokenizer(generator_tokenizer)
    encoder, generator = folder / "encoder", folder / "generator"
    tokenizers.save_generator_tokenizer(generator_tokenizer, generator)
    tokenizers.save_encoder_tokenizer(encoder_tokenizer, encoder, ENCODER_TOKENS)
    torch.manual_seed(3)
    RobertaModel(
        RobertaConfig(
            vocab_size=encoder_tokenizer.get_vocab_size(),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=ENCODER_TOKENS + 2,
            type_vocab_size=1,
        ),
        add_pooling_layer=False,
    ).save_pretrained(encoder)
    t5 = T5ForConditionalGeneration(
        T5Config(
            vocab_size=generator_tokenizer.get_vocab_size(),
            d_model=24,
            d_kv=8,
            d_ff=48,
            num_layers=2,
            num_decoder_layers=3,
            num_heads=4,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu" if gated else "relu",
            tie_word_embeddings=not gated,
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
        )
    )
    if gated:  # transformers ties the head in every new T5, and loads one that has its own as it is
        t5.lm_head.weight = torch.nn.Parameter(torch.randn_like(t5.lm_head.weight))
    enliven(t5)
    t5.save_pretrained(generator)
    return encoder, generator


def enliven(t5: T5ForConditionalGeneration, strength: float = 3.0) -> None:
    """Make a random T5 write varied text: with its usual weights it repeats its start token and nothing else.

    The stronger, the livelier, and the more it multiplies rounding errors: at T5-small's size a strength of 3 makes
    them as large as the distance of its two best tokens.
    """
    weights.enliven(t5, strength)


PREFIX = 'Expand the following "prompt" to add more detail: '
"""Of the T5 that is served alone."""

SENTENCES = {"Say who it is for.": 5, "Name the units.": 3}
"""Frequent sentences of the random adapter."""


def write_adapter(folder: Path, encoder: Path, generator: Path, seed: int = 5, **config: object) -> Path:
    """Write a random adapter for two backbones."""
    torch.manual_seed(seed)
    reader, writer = load_encoder(str(encoder)), load_generator(str(generator))
    sizes = {"encoder_width": reader.width, "generator_width": writer.width, "black_box_width": 40}
    model = PromptOptimizer.create(
        reader, writer, AdapterConfig.from_dict({**sizes, "soft_prompt_tokens": 5, "bottleneck_width": 16, **config})
    )
    with torch.no_grad():  # so that soft prompts differ from prompt to prompt
        for parameter in model.adapter.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    names = (adapter_folder.BackboneName(str(encoder)), adapter_folder.BackboneName(str(generator)))
    adapter_folder.write(folder, model.adapter, *names, {}, "a random adapter for tests\n", SENTENCES)
    return folder
