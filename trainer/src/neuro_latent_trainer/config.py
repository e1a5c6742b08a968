"""All settings of a training run, in one frozen and validated place; the command line takes its defaults from here."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from neuro_latent_core.form import Form
from neuro_latent_trainer.checks import check_at_least, check_one_of, check_positive
from neuro_latent_trainer.choices import (
    EMBEDDED,
    POOLINGS,
    PRECISIONS,
    PROJECTOR_FORMS,
    TRAINING_FORMS,
    Pooling,
    Precision,
    ProjectorForm,
    TrainingForm,
)

SHAPE = ("black_box_width", "soft_prompt_tokens", "dropout", "projector", "bottleneck_width", "pooling")
"""Settings that an adapter keeps."""


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Which settings are not the same, and how; "" where all are."""
    # As JSON: tuples and lists must compare equal.
    names = sorted(name for name in here if json.dumps(here[name]) != json.dumps(there.get(name)))
    return ", ".join(f"{name} {there.get(name)!r} there, {here[name]!r} here" for name in names)


@dataclass(frozen=True)
class LossWeights:
    """Weights of one phase's losses; 0 switches a loss off."""

    generation: float = 1.0
    distillation: float = 0.0
    contrastive: float = 0.0
    kl: float = 0.01


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run; ``neuro-latent train --help`` says what most of them mean.

    Attributes:
        form: ``auto`` is resolved by the data before a run begins.
        instruction: what the soft prompts start as; "" is the one of the form.
        start_from: adapter whose weights, and whose form, a run starts with; "" is a fresh one.

    Raises:
        ValueError: a setting is out of its range; the message names it, its value and the range.
    """

    encoder: str = f"{EMBEDDED}/encoder"
    generator: str = f"{EMBEDDED}/generator"
    form: TrainingForm = "auto"
    phase1_epochs: int = 3
    phase2_epochs: int = 3
    batch_size: int = 32
    micro_batch_size: int = 0
    learning_rate: float = 1e-3
    base_learning_rate: float = 0.1
    weight_decay: float = 0.01
    warmup_share: float = 0.05
    clip_norm: float = 1.0
    kl_weight: float = 0.01
    contrastive_temperature: float = 0.07
    input_mask: float = 0.15
    projector: ProjectorForm = "residual"
    soft_prompt_tokens: int = 20
    black_box_width: int = 1024
    bottleneck_width: int = 128
    dropout: float = 0.1
    pooling: Pooling = "mean"
    instruction: str = ""
    gate_share: float = 0.1
    start_from: str = ""
    steered: bool = True
    linear_start: bool = True
    precision: Precision = "auto"
    max_source_tokens: int = 128
    max_target_tokens: int = 128
    validation_share: float = 0.05
    max_validation_records: int = 512
    sample_every: int = 200
    save_every: int = 500
    seed: int = 0
    phase1: LossWeights = field(default=LossWeights(distillation=0.5))
    phase2: LossWeights = field(default=LossWeights(distillation=0.1, contrastive=0.1))

    def __post_init__(self) -> None:
        check_at_least(self, 0, "phase1_epochs", "phase2_epochs", "micro_batch_size")
        check_at_least(self, 0, "sample_every", "save_every", "seed", "kl_weight", "weight_decay")
        check_at_least(self, 1, "batch_size", "soft_prompt_tokens", "black_box_width", "bottleneck_width")
        check_at_least(self, 1, "max_validation_records")
        check_at_least(self, 2, "max_source_tokens", "max_target_tokens")
        check_positive(self, "learning_rate", "base_learning_rate", "clip_norm", "contrastive_temperature")
        if self.phase1_epochs + self.phase2_epochs == 0:
            raise ValueError("phase1_epochs and phase2_epochs are both 0: there is nothing to train")
        for name in ("dropout", "input_mask", "warmup_share", "gate_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, not {getattr(self, name)}")
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share must be between 0 and 1, not {self.validation_share}")
        check_one_of(self, "form", TRAINING_FORMS)
        check_one_of(self, "projector", PROJECTOR_FORMS)
        check_one_of(self, "precision", PRECISIONS)
        check_one_of(self, "pooling", POOLINGS)

    @property
    def resolved_form(self) -> Form:
        """The form to train.

        Raises:
            ValueError: it is still ``auto``.
        """
        if self.form == "auto":
            raise ValueError("the form must be complement or rewrite by now: resolve auto by the data first")
        return self.form

    def weights(self, phase: Literal[1, 2]) -> LossWeights:
        """The loss weights of a phase, with the run's KL weight."""
        chosen = self.phase1 if phase == 1 else self.phase2
        return LossWeights(chosen.generation, chosen.distillation, chosen.contrastive, self.kl_weight)

    def to_dict(self) -> dict[str, Any]:
        """All fields, as JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainConfig":
        """The settings that :meth:`to_dict` of this or another version gave: what is not there keeps its default, what
        nobody knows any more is left aside.

        Raises:
            ValueError: a setting is out of its range.
        """
        known: dict[str, Any] = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        for phase in {"phase1", "phase2"} & known.keys():
            known[phase] = LossWeights(**known[phase])
        return cls(**known)
