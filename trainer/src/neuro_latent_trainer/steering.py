"""The adapter that a generator was pre-trained with, beside its weights.

A generator of this project's own pre-training has already read soft prompts: a black box and a projector made them of
the raw prompt's embedding. An adapter for that pair starts with these instead of ones that know nothing. Other
generators (T5-small from the Hub) have no such file, and start from the instruction's embeddings.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from neuro_latent_trainer.adapter import Adapter, AdapterConfig
from neuro_latent_trainer.backbones import Encoder
from neuro_latent_trainer.choices import without_removed

STEERING_FILE = "steering.safetensors"
"""In the generator's folder: the tensors of an adapter, under its names."""


def _shared(config: AdapterConfig, encoder: Encoder) -> dict[str, Any]:
    """What an adapter must have in common with the pre-training to start from its weights."""
    settings = config.model_dump()
    for name in ("dropout", "instruction"):
        del settings[name]
    return {**settings, "encoder_sha256": encoder.sha256}


def write(folder: Path, encoder: Encoder, adapter: Adapter) -> None:
    """Put an adapter beside the generator's weights, in float16; ``encoder`` is the frozen one that it reads."""
    save_file(
        {name: tensor.half().contiguous() for name, tensor in adapter.state_dict().items()},
        folder / STEERING_FILE,
        metadata={"config": json.dumps(_shared(adapter.config, encoder), sort_keys=True)},
    )


def read(folder: Path, config: AdapterConfig, encoder: Encoder) -> dict[str, Tensor] | None:
    """Tensors for an adapter, float32, by name; None where there are none or they are for others."""
    path = folder / STEERING_FILE
    if not path.is_file():
        return None
    with safe_open(path, "pt") as file:
        if without_removed(json.loads(file.metadata()["config"])) != _shared(config, encoder):
            return None
        return {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (not a dictionary)
