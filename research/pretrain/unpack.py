"""A published pair -> the files of a work folder, to go on from: ``python -m research.pretrain.unpack --work work``.

Writes ``encoder.pt``, ``intent.pt``, ``generator.pt`` and the two tokenizers as the stages before ``publish`` leave
them, out of the hub folders. ``prepare --tokenizers-at-hand`` then makes the token files with these tokenizers.
"""

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import RobertaModel, T5ForConditionalGeneration

from neuro_latent_trainer.steering import STEERING_FILE


def main() -> None:
    """Read the options and write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--pair", type=Path, default=Path("models/neuro-latent-mini"))
    options = parser.parse_args()
    work, pair = options.work, options.pair
    work.mkdir(parents=True, exist_ok=True)
    roberta = RobertaModel.from_pretrained(pair / "encoder", add_pooling_layer=False)
    torch.save(roberta.float().state_dict(), work / "encoder.pt")
    steering = {name: tensor.float() for name, tensor in load_file(pair / "generator" / STEERING_FILE).items()}
    t5 = T5ForConditionalGeneration.from_pretrained(pair / "generator").float()
    weights = {f"t5.{name}": tensor for name, tensor in t5.state_dict().items()}
    projector = {name: tensor for name, tensor in steering.items() if name.startswith("projector.")}
    torch.save(weights | projector, work / "generator.pt")
    torch.save({name: tensor for name, tensor in steering.items() if name not in projector}, work / "intent.pt")
    for model in ("encoder", "generator"):
        shutil.copyfile(pair / model / "tokenizer.json", work / f"{model}_tokenizer.json")


if __name__ == "__main__":
    main()
