"""Weights of the pre-training -> folders in hub format.

``python -m research.pretrain.publish --work work --output DIR`` writes ``encoder/`` and ``generator/`` in float16. The
generator's folder gets ``steering.safetensors``: the adapter that it was pre-trained with, from which adapters for this
pair start.
"""

import argparse
from pathlib import Path

import torch
from tokenizers import Tokenizer

from neuro_latent_trainer import steering
from neuro_latent_trainer.adapter import Adapter, AdapterConfig
from neuro_latent_trainer.backbones import load_encoder
from research.pretrain.encoder import ENCODER_TOKENS, student
from research.pretrain.generator import INSTRUCTION, SOFT, make_t5
from research.pretrain.tokenizers import save_encoder_tokenizer, save_generator_tokenizer


def main() -> None:
    """Read the options and write the folders."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("models/neuro-latent-mini"))
    options = parser.parse_args()
    work, output = options.work, options.output
    text = Tokenizer.from_file(str(work / "encoder_tokenizer.json"))
    roberta = student(text.get_vocab_size())
    roberta.load_state_dict(torch.load(work / "encoder.pt", weights_only=True, map_location="cpu"))
    roberta.half().save_pretrained(output / "encoder")
    save_encoder_tokenizer(text, output / "encoder", ENCODER_TOKENS)
    encoder = load_encoder(str(output / "encoder"))
    text = Tokenizer.from_file(str(work / "generator_tokenizer.json"))
    t5 = make_t5(text.get_vocab_size())
    state = torch.load(work / "generator.pt", weights_only=True, map_location="cpu")
    t5.load_state_dict({k.removeprefix("t5."): v for k, v in state.items() if k.startswith("t5.")})
    config = AdapterConfig(
        encoder.width, t5.config.d_model, soft_prompt_tokens=SOFT, instruction=INSTRUCTION, form="complement"
    )
    adapter = Adapter(config)
    projector = {k: v for k, v in state.items() if k.startswith("projector.")}
    adapter.load_state_dict(torch.load(work / "intent.pt", weights_only=True) | projector)
    t5.half().save_pretrained(output / "generator")
    save_generator_tokenizer(text, output / "generator")
    steering.write(output / "generator", encoder, adapter)
    print(f"{output / 'encoder'}\n{output / 'generator'}")


if __name__ == "__main__":
    main()
