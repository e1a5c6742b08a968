"""What of a model's texts is served: gate and guard, as the server applies them.

Shape letters: ``N`` rows.
"""

from collections.abc import Sequence

import torch

from neuro_latent_core.form import Form, join
from neuro_latent_trainer.evaluation.systems import Conditioned, embeddings
from neuro_latent_trainer.model import PromptOptimizer
from neuro_latent_trainer.written import Part, served


def whole(raw: Sequence[str], texts: Sequence[str], form: Form) -> list[str]:
    """The enhanced prompts that a model's texts make."""
    return [join(prompt, text) if form == "complement" else text for prompt, text in zip(raw, texts, strict=True)]


def nothing(raw: Sequence[str], form: Form) -> list[str]:
    """The texts that leave the raw prompts as they are."""
    return [""] * len(raw) if form == "complement" else list(raw)


@torch.no_grad()
def as_served(
    model: PromptOptimizer, system: Conditioned, raw: Sequence[str], texts: Sequence[str]
) -> tuple[list[str], list[str]]:
    """The texts as they are served, and for each why it is withheld, "" where it is served.

    What is withheld leaves the raw prompt as it is; an empty complement is never withheld. ``system`` wrote the texts.
    """
    form = model.adapter.config.form
    answers, reasons = [], []
    for prompt, text, parts, embedding_E, instead in zip(
        raw, texts, system.parts(raw, texts), embeddings(model, raw), nothing(raw, form), strict=True
    ):
        answer, reason = "", ""
        if text or form == "rewrite":
            whole_text = Part(text, parts[0].mean_logprob)  # also where it is longer than what counts in losses
            answer, reason = served(model.adapter, embedding_E, prompt, [whole_text, *parts[1:]])
        answers.append(instead if reason else answer)
        reasons.append(reason)
    return answers, reasons
