"""The adapter that a generator was pre-trained with, beside its weights.

A generator of this project's own pre-training has already read soft prompts: a black box and a projector made them of
the raw prompt's embedding. An adapter for that pair starts with these instead of ones that know nothing. Other
generators (T5-small from the Hub) have no such file, and start from the instruction's embeddings.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from neuro_latent_trainer.adapter import Adapter, AdapterConfig
from neuro_latent_trainer.backbones import Encoder
from neuro_latent_trainer.choices import without_removed

STEERING_FILE = "steering.safetensors"
"""In the generator's folder: the tensors of an adapter, under its names."""


@dataclass(frozen=True)
class SteeringConfig:
    """What an adapter must have in common with the pre-training to start from its weights."""

    encoder_sha256: str
    encoder_width: int
    generator_width: int
    soft_prompt_tokens: int
    black_box_width: int
    bottleneck_width: int
    pooling: str
    projector: str = "residual"
    form: str = "complement"

    @classmethod
    def of(cls, config: AdapterConfig, encoder: Encoder) -> "SteeringConfig":
        """What counts of an adapter's settings, and of the frozen encoder that it reads."""
        return cls(
            encoder_sha256=encoder.sha256,
            encoder_width=config.encoder_width,
            generator_width=config.generator_width,
            soft_prompt_tokens=config.soft_prompt_tokens,
            black_box_width=config.black_box_width,
            bottleneck_width=config.bottleneck_width,
            pooling=config.pooling,
            projector=config.projector,
            form=config.form,
        )


def write(folder: Path, config: SteeringConfig, adapter: Adapter) -> None:
    """Put an adapter beside the generator's weights, in float16."""
    save_file(
        {name: tensor.half().contiguous() for name, tensor in adapter.state_dict().items()},
        folder / STEERING_FILE,
        metadata={"config": json.dumps(vars(config), sort_keys=True)},
    )


def read(folder: Path, config: AdapterConfig, encoder: Encoder) -> dict[str, Tensor] | None:
    """Tensors for an adapter, float32, by name; None where there are none or they are for others."""
    path = folder / STEERING_FILE
    if not path.is_file():
        return None
    with safe_open(path, "pt") as file:
        if without_removed(json.loads(file.metadata()["config"])) != vars(SteeringConfig.of(config, encoder)):
            return None
        return {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (not a dictionary)
