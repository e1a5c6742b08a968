"""The systems whose prompts a responder is asked: the adapter, and what it has to beat."""

from collections.abc import Sequence

from neuro_latent_core.guard.language import is_english
from neuro_latent_trainer.data import Record
from neuro_latent_trainer.evaluation.evaluate import (
    ADAPTER,
    CONSTANT,
    NEAREST,
    SERVED,
    SHUFFLED,
    others,
    targets,
    with_target,
)
from neuro_latent_trainer.evaluation.served import as_served, nothing, whole
from neuro_latent_trainer.evaluation.systems import Conditioned, adapted, nearest, typical
from neuro_latent_trainer.model import PromptOptimizer
from neuro_latent_trainer.settings import EvaluationConfig

FILLER = "filler"

WORDS = {
    "raw": "The prompt as it was typed.",
    SERVED: "The adapter behind gate and guard: where they keep a text back, the raw prompt.",
    ADAPTER: "The adapter with gate and guard off.",
    SHUFFLED: "The raw prompt with what the adapter wrote for another prompt.",
    CONSTANT: "The raw prompt with one sentence, the same for all.",
    FILLER: "The raw prompt with as long a text as is served that asks for nothing.",
    NEAREST: "The raw prompt with the text of the most similar training prompt.",
}
"""What each system is."""

CONSTANT_TEXT = "Keep the answer clear and short, say what you assume, and ask me if something important is missing."
"""Where no training data say what a typical complement is."""

FILLER_TEXT = "This text stands here only so that the prompt is as long as the others are, and it asks for nothing. "


def enhanced_by_system(
    model: PromptOptimizer, prompts: Sequence[str], train: Sequence[Record], config: EvaluationConfig
) -> dict[str, list[str]]:
    """The enhanced prompts of every system.

    In the complement form there are also controls: the adapter's additions to other prompts, one constant sentence,
    and equally long texts that ask for nothing.

    Args:
        train: what the adapter was trained on, for the nearest training prompt and the constant; may be empty.
    """
    form, raw = model.adapter.config.form, list(prompts)
    written, served = written_and_served(model, raw, config)
    texts = {SERVED: served, ADAPTER: written}
    known = with_target(train, form)
    if known:
        texts[NEAREST] = nearest(model, [r.raw_prompt for r in known], targets(known, form))(raw)
    if form == "complement":
        added = [text for text in targets(known, form) if text]
        texts[SHUFFLED] = [written[row] for row in others(len(raw))]
        texts[CONSTANT] = [typical(model, added) if added else CONSTANT_TEXT] * len(raw)
        texts[FILLER] = [_filler(len(text.split())) for text in served]
    return {name: whole(raw, some, form) for name, some in texts.items()}


def written_and_served(
    model: PromptOptimizer, prompts: Sequence[str], config: EvaluationConfig, name: str = "adapter"
) -> tuple[list[str], list[str]]:
    """What an adapter writes for prompts, and what of it is served; ``name`` is for the progress bar."""
    form, raw = model.adapter.config.form, list(prompts)
    adapter = Conditioned(model.generator, adapted(model), config)
    written = adapter.write(raw, f"{name} writes")
    served, _ = as_served(model, adapter, raw, written)
    kept = nothing(raw, form)
    return written, [text if is_english(prompt) else no for prompt, text, no in zip(raw, served, kept, strict=True)]


def _filler(words: int) -> str:
    """So many words that ask for nothing."""
    text = FILLER_TEXT.split()
    return " ".join((text * (words // len(text) + 1))[:words])
