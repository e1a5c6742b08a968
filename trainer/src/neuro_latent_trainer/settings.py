"""All settings of a training run and of an evaluation; each is declared here and nowhere else."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from neuro_latent_core.form import Form
from neuro_latent_trainer.choices import EMBEDDED, Pooling, Precision, ProjectorForm, TrainingForm
from neuro_latent_trainer.settings_model import Settings

SHAPE = ("black_box_width", "soft_prompt_tokens", "dropout", "projector", "bottleneck_width", "pooling")
"""Settings that an adapter keeps."""
CONFIG_FILE = "config.toml"
"""In a run's folder: its settings, for ``--config``."""


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Which settings are not the same, and how; "" where all are."""
    names = sorted(name for name in here if here[name] != there.get(name))
    return ", ".join(f"{name} {there.get(name)!r} there, {here[name]!r} here" for name in names)


def check_epochs(settings: Any) -> Any:
    """Refuse settings with no epochs at all."""
    if settings.phase1_epochs + settings.phase2_epochs == 0:
        raise ValueError("phase1_epochs and phase2_epochs are both 0: there is nothing to train")
    return settings


class LossWeights(Settings):
    """Weights of one phase's losses; 0 switches a loss off."""

    generation: float = Field(default=1.0, description="Cross-entropy of the target through T5.")
    distillation: float = Field(default=0.0, description="MSE of the intent to the enhanced prompt's embedding.")
    contrastive: float = Field(default=0.0, description="InfoNCE towards the own enhanced prompt.")
    kl: float = 0.01  # of no effect in a file: kl_weight holds in both phases


class TrainConfig(Settings):
    """Settings of a training run."""

    encoder: str = Field(default=f"{EMBEDDED}/encoder", description="Frozen encoder: Hub name or local folder.")
    generator: str = Field(default=f"{EMBEDDED}/generator", description="Frozen T5: Hub name or local folder.")
    form: TrainingForm = Field(
        default="auto",
        description="What T5 learns to write: complement (text behind the raw prompt, which stays as it is), rewrite "
        "(a whole new prompt), or auto: complement where the data has a column of them or nine in ten enhanced prompts "
        "begin with their raw prompt. With start_from, auto is the form of that adapter.",
    )
    phase1_epochs: int = Field(default=3, ge=0, description="Epochs of distillation.")
    phase2_epochs: int = Field(default=3, ge=0, description="Epochs of contrastive training.")
    batch_size: int = Field(default=32, ge=1, description="Records a step, over all processes.")
    micro_batch_size: int = Field(
        default=0, ge=0, description="The most records that T5 sees at once: less memory, the same step; 0 is all."
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="AdamW's peak rate.")
    base_learning_rate: float = Field(
        default=0.1,
        gt=0,
        description="The rate of what all soft prompts have in common, in spreads of T5's embeddings a step.",
    )
    weight_decay: float = Field(default=0.01, ge=0, description="AdamW's weight decay.")
    warmup_share: float = Field(default=0.05, ge=0, lt=1, description="Share of the steps in which the rate rises.")
    clip_norm: float = Field(default=1.0, gt=0, description="The largest norm of a step's gradient.")
    kl_weight: float = Field(default=0.01, ge=0, description="Weight of the KL penalty on soft prompts.")
    contrastive_temperature: float = Field(default=0.07, gt=0, description="Of InfoNCE.")
    input_mask: float = Field(
        default=0.15, ge=0, lt=1, description="Share of the prompt's tokens hidden from T5 in training."
    )
    projector: ProjectorForm = Field(default="residual", description="How an intent becomes soft prompts.")
    soft_prompt_tokens: int = Field(default=20, ge=1, description="Number of soft prompts.")
    black_box_width: int = Field(default=1024, ge=1, description="Hidden units of the black box.")
    bottleneck_width: int = Field(default=128, ge=1, description="Hidden units of the residual projector.")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="In the black box.")
    pooling: Pooling = Field(default="mean", description="Of the encoder's states: their mean, or the first one.")
    instruction: str = Field(
        default="", description='What the soft prompts start as; "" is the instruction of the form.'
    )
    gate_share: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Share of the kinds of request (or clusters) kept out of training, for the gate of the complement "
        "form to be fitted on; 0 fits none, and everything is served.",
    )
    start_from: str = Field(
        default="", description="Adapter to go on training from, with other data or settings: folder, run or Hub name."
    )
    steered: bool = Field(
        default=True, description="Start from the adapter that the generator was pre-trained with, where it has one."
    )
    linear_start: bool = Field(
        default=True, description="Start the black box as the best linear guess of the enhanced prompt's embedding."
    )
    precision: Precision = Field(default="auto", description="Of T5's products; auto is bf16 on a GPU, else fp32.")
    max_source_tokens: int = Field(default=128, ge=2, description="Longest raw prompt in training.")
    max_target_tokens: int = Field(default=128, ge=2, description="Longest target in training.")
    validation_share: float = Field(default=0.05, gt=0, lt=1, description="Share held out without --val-path.")
    max_validation_records: int = Field(default=512, ge=1, description="The most held-out records, chosen by a hash.")
    sample_every: int = Field(default=200, ge=0, description="Steps between sample texts; 0 is never.")
    save_every: int = Field(default=500, ge=0, description="Steps between checkpoints within an epoch; 0 is never.")
    seed: int = Field(default=0, ge=0, description="Seed of weights, order and masks.")
    phase1: LossWeights = Field(
        default=LossWeights(distillation=0.5), description="Weights of the losses of distillation."
    )
    phase2: LossWeights = Field(
        default=LossWeights(distillation=0.1, contrastive=0.1),
        description="Weights of the losses of contrastive training.",
    )

    _check_epochs = model_validator(mode="after")(check_epochs)

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
        return (self.phase1 if phase == 1 else self.phase2).replace(kl=self.kl_weight)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The settings that this or another version saved: what is not there keeps its default, what nobody knows any
        more is left aside.

        Raises:
            ValueError: a setting is out of its range.
        """
        return cls(**{name: values[name] for name in cls.model_fields if name in values})


class EvaluationConfig(Settings):
    """What an evaluation looks at."""

    rows: int = Field(
        default=2000,
        ge=2,
        description="The most rows of --data, chosen by a hash, so that a file's order does not matter.",
    )
    max_length: int = Field(default=96, ge=1, le=512, description="The most tokens that a system writes.")
    max_target_tokens: int = Field(
        default=128, ge=1, description="The most tokens of a gold text that count for the cross-entropy."
    )


class ResponderConfig(Settings):
    """The language model that answers prompts, and how it is asked."""

    responder: str | None = Field(
        default=None,
        description="Language model that answers: a folder in Hugging Face's format, a name on the Hub, or a GGUF "
        "file; with --responder-url its name on that server.",
    )
    responder_url: str | None = Field(
        default=None,
        description="OpenAI-compatible server of --responder, with its /v1; its key is taken from OPENAI_API_KEY.",
    )
    judge: str | None = Field(
        default=None,
        description="Model that compares answers where tasks have neither good answers nor checks, where the responder "
        "is; by default the responder itself.",
    )
    concurrency: int = Field(default=8, ge=1, le=256, description="Requests to --responder-url at a time.")
    answer_tokens: int = Field(default=256, ge=1, le=4096, description="The most tokens that the responder writes.")
    price: tuple[float, float] | None = Field(
        default=None, description="Price of a million tokens read, and written: the cost is shown."
    )
    responder_cache: Path | None = Field(
        default=None,
        description="Where answers are kept, so that a run goes on and nothing is paid for twice; by default "
        "~/.cache/neuro-latent/responses.sqlite.",
    )


class ScoringConfig(Settings):
    """How records are made of scores."""

    samples: int = Field(
        default=4, ge=1, le=64, description="Texts that the adapter writes for a prompt, the greedy one among them."
    )
    temperature: float = Field(default=0.9, ge=0.01, le=5, description="Of the draws.")
    margin: float = Field(
        default=0.01,
        ge=0,
        description="Least gain of a candidate that is taken; least loss of one that failed. In nats a token where "
        "good answers are known.",
    )
    max_length: int = Field(default=96, ge=1, le=512, description="The most tokens of a text.")
    seed: int = Field(default=0, ge=0, description="Of the draws.")
