"""Names and choices that the command line shows; imports nothing heavy."""

from typing import Final, Literal, get_args

EMBEDDED: Final = "neuro-latent-mini"
"""The small pair shipped with this project: ``neuro-latent-mini/encoder`` and ``neuro-latent-mini/generator``."""

Pooling = Literal["mean", "cls"]
POOLINGS: tuple[str, ...] = get_args(Pooling)

ProjectorForm = Literal["residual", "dense"]
PROJECTOR_FORMS: tuple[str, ...] = get_args(ProjectorForm)

INSTRUCTIONS: Final = {
    "complement": "Add what is missing to this request: ",
    "rewrite": "Rewrite this request as a clear and detailed prompt: ",
}
"""By form: the soft prompts of the residual projector start as the generator's embeddings of this text."""

TrainingForm = Literal["auto", "complement", "rewrite"]
TRAINING_FORMS: tuple[str, ...] = get_args(TrainingForm)
"""The form to train; ``auto`` looks at the data."""

KlForm = Literal["moments", "vocabulary"]
KL_FORMS: tuple[str, ...] = get_args(KlForm)

Precision = Literal["auto", "fp32", "bf16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
"""Of T5's products in training; ``auto`` is bf16 on a GPU, fp32 elsewhere."""
