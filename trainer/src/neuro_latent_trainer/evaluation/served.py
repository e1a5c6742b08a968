"""What of a model's texts is served: gate and guard, as the server applies them.

Shape letters: ``N`` rows.
"""

from collections.abc import Sequence

import torch

from neuro_latent_client.form import Form, join
from neuro_latent_client.guard import NOT_SURE, rejects
from neuro_latent_trainer.evaluation.systems import Conditioned, embeddings
from neuro_latent_trainer.model import PromptOptimizer


def whole(raw: Sequence[str], texts: Sequence[str], form: Form) -> list[str]:
    """The enhanced prompts that a model's texts make."""
    return [join(prompt, text) if form == "complement" else text for prompt, text in zip(raw, texts, strict=True)]


def nothing(raw: Sequence[str], form: Form) -> list[str]:
    """The texts that leave the raw prompts as they are."""
    return [""] * len(raw) if form == "complement" else list(raw)


@torch.no_grad()
def withheld(model: PromptOptimizer, system: Conditioned, raw: Sequence[str], texts: Sequence[str]) -> list[str]:
    """For each text why it is withheld; "" where it is served.

    Args:
        model: whose adapter's gate and form count.
        system: that wrote the texts.
        raw: their prompts.
        texts: complements or rewrites, as the model wrote them; an empty complement is never withheld.
    """
    form = model.adapter.config.form
    unsure = [False] * len(raw)
    if model.adapter.gate is not None:
        logprob_N = torch.from_numpy(-system.losses(raw, texts).per_token).float().to(model.device)
        embedding_NE = embeddings(model, raw)
        threshold_N = model.adapter.gate_values(embedding_NE)[:, 2]
        unsure = (model.adapter.confidence(embedding_NE, logprob_N) < threshold_N).tolist()
    return [
        "" if form == "complement" and not text else NOT_SURE if doubtful else rejects(prompt, text, form)
        for prompt, text, doubtful in zip(raw, texts, unsure, strict=True)
    ]


def as_served(
    model: PromptOptimizer, system: Conditioned, raw: Sequence[str], texts: Sequence[str]
) -> tuple[list[str], list[str]]:
    """The texts as they are served (what is withheld leaves the raw prompt as it is), and the reasons of
    :func:`withheld`."""
    reasons = withheld(model, system, raw, texts)
    instead = nothing(raw, model.adapter.config.form)
    return [other if reason else text for text, other, reason in zip(texts, instead, reasons, strict=True)], reasons
