"""Names and choices that the command line shows; imports nothing heavy."""

from collections.abc import Mapping
from typing import Any, Final, Literal

EMBEDDED: Final = "neuro-latent-mini"
"""The small pair shipped with this project: ``neuro-latent-mini/encoder`` and ``neuro-latent-mini/generator``."""

Pooling = Literal["mean", "cls"]

ProjectorForm = Literal["residual", "dense"]

INSTRUCTIONS: Final = {
    "complement": "Add what is missing to this request: ",
    "rewrite": "Rewrite this request as a clear and detailed prompt: ",
}
"""By form: the soft prompts of the residual projector start as the generator's embeddings of this text."""

TrainingForm = Literal["auto", "complement", "rewrite"]
"""The form to train; ``auto`` looks at the data."""

Precision = Literal["auto", "fp32", "bf16"]
"""Of T5's products in training; ``auto`` is bf16 on a GPU, fp32 elsewhere."""

REMOVED: Final = {"memory_prompts": 0, "kl_form": "moments", "intent_dropout": 0.0}
"""Options of earlier versions, each with the value that is as good as no such option."""


def without_removed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Saved settings without the options that have been removed.

    Raises:
        ValueError: one of these was in use.
    """
    for name, unused in REMOVED.items():
        if (value := settings.get(name, unused)) != unused:
            raise ValueError(f"made with {name} {value!r}, an option that has been removed: train again without it")
    return {name: value for name, value in settings.items() if name not in REMOVED}
