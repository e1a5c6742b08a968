"""One evaluation: all systems on the same rows.

What is compared is what a model writes: complements of an adapter of the complement form, whole enhanced prompts of one
that rewrites. Embeddings are always those of whole enhanced prompts.

Shape letters: ``N`` rows, ``P`` soft prompts, ``D`` generator width, ``E`` encoder width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from neuro_latent_core.form import Form
from neuro_latent_trainer.data import Record, sample_records
from neuro_latent_trainer.evaluation import latent, measures, statistics
from neuro_latent_trainer.evaluation.baselines import Baselines
from neuro_latent_trainer.evaluation.served import as_served, nothing, whole
from neuro_latent_trainer.evaluation.statistics import Floats, Interval
from neuro_latent_trainer.evaluation.systems import (
    Conditioned,
    Losses,
    adapted,
    embeddings,
    instructed,
    nearest,
    prompted,
    softly_prompted,
    typical,
)
from neuro_latent_trainer.model import PromptOptimizer
from neuro_latent_trainer.settings import EvaluationConfig

RAW, NEAREST, CONSTANT, INSTRUCTION, PROMPT_TUNING = "raw", "nearest", "constant", "instruction", "prompt tuning"
ADAPTER, FULL_FINETUNE = "adapter", "full fine-tune"
SHUFFLED, SERVED = "adapter, shuffled", "adapter, as served"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures by name and, where there are several, by system; the texts that they are of.

    Attributes:
        figures: JSON types only.
        raw, gold: prompts and what should be written for them.
        texts: by system.
    """

    figures: dict[str, Any]
    form: Form
    raw: list[str]
    gold: list[str]
    texts: dict[str, list[str]]

    def enhanced(self, texts: Sequence[str]) -> list[str]:
        """The enhanced prompts that texts of all rows make."""
        return whole(self.raw, texts, self.form)


def with_target(records: Sequence[Record], form: Form) -> list[Record]:
    """Records that say what to write in a form."""
    return [record for record in records if record.target(form) is not None]


def chosen(records: Sequence[Record], form: Form, most: int) -> list[Record]:
    """Records that say what to write in a form, at most ``most``, by a hash of their raw prompts.

    Raises:
        ValueError: fewer than 2 do.
    """
    found = with_target(records, form)
    if len(found) < 2:
        kept = ", which begins with the raw prompt" if form == "complement" else ""
        raise ValueError(f"an evaluation needs at least 2 rows with an enhanced prompt{kept}, not {len(found)}")
    return sample_records(found, most)


def targets(records: Sequence[Record], form: Form) -> list[str]:
    """What is to be written for records that say so."""
    return [record.target(form) or "" for record in records]


def evaluate(
    model: PromptOptimizer,
    records: Sequence[Record],
    *,
    train: Sequence[Record] = (),
    preferences: Sequence[Record] = (),
    baselines: Baselines | None = None,
    config: EvaluationConfig | None = None,
) -> Evaluation:
    """Compare an adapter with baselines.

    Args:
        model: with the adapter.
        records: the rows to compare on.
        train: what the adapter was trained on, for the nearest neighbour.
        preferences: rows with an enhanced and a failed prompt each.
        baselines: prompt tuning and full fine-tuning, trained here if they are not yet.

    Raises:
        ValueError: there are too few rows.
    """
    config = config or EvaluationConfig()
    if not all(map(is_triple, preferences)):
        raise ValueError("each row of preferences needs an enhanced and a failed prompt")
    form = model.adapter.config.form
    rows = chosen(records, form, config.rows)
    raw, gold = [r.raw_prompt for r in rows], targets(rows, form)
    systems = _systems(model, baselines, config)
    known = with_target(train, form)
    texts = {RAW: nothing(raw, form)}  # T5 is asked with the raw prompt alone for likelihoods, not for a text

    with torch.no_grad():
        if known:
            texts[NEAREST] = nearest(model, [r.raw_prompt for r in known], targets(known, form))(raw)
        if form == "complement" and (added := [text for text in targets(known, form) if text]):
            # Taken from the data, not written by hand, so that its style and language are those of the references.
            texts[CONSTANT] = [typical(model, added)] * len(rows)
        for name, system in systems.items():
            if name != RAW:
                texts[name] = system.write(raw, f"{name} writes")
        if form == "complement":
            texts[SHUFFLED] = [texts[ADAPTER][row] for row in others(len(rows))]
        texts[SERVED], reasons = as_served(model, systems[ADAPTER], raw, texts[ADAPTER])
        measured = {name: measures.measure(raw, gold, written, form) for name, written in texts.items()}
        losses = {name: system.losses(raw, gold, f"{name} scores") for name, system in systems.items()}
        figures: dict[str, Any] = {
            "rows": len(rows),
            "form": form,
            "ce": {name: statistics.mean(found.per_token, found.tokens).as_json() for name, found in losses.items()},
            **{name: {system: found[name] for system, found in measured.items()} for name in measured[RAW]},
            "withheld": {SERVED: statistics.mean([float(bool(reason)) for reason in reasons]).as_json()},
            "better_than": {
                name: _better_than(losses[ADAPTER], losses.get(name), texts[ADAPTER], texts[name], gold)
                for name in texts
                if name not in (ADAPTER, SERVED)
            },
            **_share_of_gain(losses),
            **_of_adapter(model, config, rows, losses[ADAPTER]),
            **_preferences(model, systems, preferences),
        }
    return Evaluation(figures, form, raw, gold, texts)


@torch.no_grad()
def score(
    model: PromptOptimizer,
    records: Sequence[Record],
    preferences: Sequence[Record] = (),
    config: EvaluationConfig | None = None,
) -> dict[str, Any]:
    """The adapter's figures that need no text to be written, named as by :func:`evaluate`.

    Raises:
        ValueError: there are too few rows.
    """
    config = config or EvaluationConfig()
    form = model.adapter.config.form
    rows = chosen(records, form, config.rows)
    system = Conditioned(model.generator, adapted(model), config)
    own = system.losses([r.raw_prompt for r in rows], targets(rows, form))
    return {
        "ce": {ADAPTER: statistics.mean(own.per_token, own.tokens).as_json()},
        **_of_adapter(model, config, rows, own),
        **_preferences(model, {ADAPTER: system}, preferences),
    }


def _of_adapter(
    model: PromptOptimizer, config: EvaluationConfig, rows: Sequence[Record], own: Losses
) -> dict[str, Any]:
    """What only the adapter has: how much worse the loss is with another row's soft prompts and with the mean ones, how
    different the soft prompts are, and how well intents tell the own gold prompt."""
    adapter, raw, gold = model.adapter, [r.raw_prompt for r in rows], targets(rows, model.adapter.config.form)
    raw_NE, enhanced_NE = embeddings(model, raw), embeddings(model, [r.enhanced_prompt or "" for r in rows])
    soft_NPD = torch.cat([adapter(part) for part in raw_NE.split(256)])
    other: dict[str, Tensor] = {prompt: soft_NPD[row] for prompt, row in zip(raw, others(len(raw)), strict=True)}
    changes = {
        "usage_gap": softly_prompted(model.generator, lambda prompts: torch.stack([other[p] for p in prompts])),
        "usage_gap_to_mean": prompted(model.generator, soft_NPD.mean(0)),
    }
    gaps = {}
    for name, condition in changes.items():
        changed = Conditioned(model.generator, condition, config).losses(raw, gold)
        gaps[name] = {ADAPTER: statistics.mean(changed.per_token - own.per_token, own.tokens).as_json()}
    intent_NE = adapter.intent(raw_NE)
    raw_NE, enhanced_NE = adapter.standardizer(raw_NE), adapter.standardizer(enhanced_NE)
    return {
        **gaps,
        "effective_rank": {ADAPTER: round(latent.effective_rank(soft_NPD), 3)},
        "retrieval": {
            RAW: latent.retrieval(raw_NE, enhanced_NE).as_json(),
            ADAPTER: latent.retrieval(intent_NE, enhanced_NE).as_json(),
        },
        "intent_r2": {ADAPTER: round(latent.explained(intent_NE, enhanced_NE), 5)},
    }


def _preferences(
    model: PromptOptimizer, scored: dict[str, Conditioned], preferences: Sequence[Record]
) -> dict[str, Any]:
    """How often what succeeded is preferred, of rows that are triples."""
    figures: dict[str, Any] = {}
    form = model.adapter.config.form
    if comparable := [record for record in preferences if is_comparable(record, form)]:
        figures["preference_accuracy"] = {
            name: statistics.mean(prefers_success(system, comparable, form)).as_json()
            for name, system in scored.items()
        }
    if preferences:
        figures["preference_by_intent"] = {
            name: found.as_json() for name, found in preference_by_intent(model, preferences).items()
        }
    return figures


def _systems(model: PromptOptimizer, baselines: Baselines | None, config: EvaluationConfig) -> dict[str, Conditioned]:
    """All that writes and has a likelihood, in the order of the reports."""
    generator, instruction = model.generator, model.adapter.config.instruction
    systems = {
        RAW: Conditioned(generator, instructed(generator, ""), config),
        INSTRUCTION: Conditioned(generator, instructed(generator, instruction), config),
    }
    if baselines is not None:
        soft_PD = baselines.prompt_tuning()
        systems[PROMPT_TUNING] = Conditioned(generator, prompted(generator, soft_PD), config)
    systems[ADAPTER] = Conditioned(generator, adapted(model), config)
    if baselines is not None:
        tuned = baselines.full_finetune()
        systems[FULL_FINETUNE] = Conditioned(tuned, instructed(tuned, instruction), config)
    return systems


def _better_than(
    ours: Losses, theirs: Losses | None, our_texts: list[str], their_texts: list[str], gold: list[str]
) -> dict[str, Any]:
    """How much better the adapter is than another system, row by row: chrF won, and loss saved where both have one."""
    chrf = measures.chrf(our_texts, gold) - measures.chrf(their_texts, gold)
    found = {"chrf": statistics.mean(chrf).as_json()}
    if theirs is not None:
        found["ce"] = statistics.mean(theirs.per_token - ours.per_token, ours.tokens).as_json()
    return found


def _share_of_gain(losses: dict[str, Losses]) -> dict[str, Any]:
    """What share of the loss that full fine-tuning saves, over the frozen T5 with an instruction, others save."""
    if FULL_FINETUNE not in losses:
        return {}
    start, best = losses[INSTRUCTION].nats, losses[FULL_FINETUNE].nats
    return {
        "share_of_full_finetune_gain": {
            name: statistics.ratio(start - losses[name].nats, start - best).as_json()
            for name in (PROMPT_TUNING, ADAPTER)
        }
    }


def is_triple(record: Record) -> bool:
    """Whether a record has a raw, an enhanced and a failed prompt."""
    return record.enhanced_prompt is not None and bool(record.failed_prompts)


def is_comparable(record: Record, form: Form) -> bool:
    """Whether a model of a form could write both the enhanced and the failed prompt of a record."""
    return record.target(form) is not None and record.failed_target(form) is not None


def prefers_success(system: Conditioned, preferences: Sequence[Record], form: Form) -> Floats:
    """For each comparable row, 1 where a system finds what succeeded likelier, token for token, than what failed."""
    raw = [record.raw_prompt for record in preferences]
    failed = [record.failed_target(form) or "" for record in preferences]
    success_loss, failed_loss = system.losses(raw, targets(preferences, form)), system.losses(raw, failed)
    return _above(-success_loss.per_token, -failed_loss.per_token)


@torch.no_grad()
def preference_by_intent(model: PromptOptimizer, preferences: Sequence[Record]) -> dict[str, Interval]:
    """How often the enhanced prompt's embedding is nearer, by cosine, than the failed one's: to the raw prompt's, and
    to the optimized intent."""
    versions = (
        [record.raw_prompt for record in preferences],
        [record.enhanced_prompt or "" for record in preferences],
        [record.failed_prompts[0] for record in preferences],
    )
    raw, success, failed = (model.adapter.standardizer(embeddings(model, texts)) for texts in versions)
    intent = model.adapter.black_box(raw)
    return {
        name: statistics.mean(
            _above(
                F.cosine_similarity(asked, success).double().cpu().numpy(),
                F.cosine_similarity(asked, failed).double().cpu().numpy(),
            )
        )
        for name, asked in ((RAW, raw), (ADAPTER, intent))
    }


def _above(success: Floats, failed: Floats) -> Floats:
    """1 where the first is larger, a half where they are equal."""
    above: Floats = (success > failed) + 0.5 * (success == failed)
    return above


def others(rows: int) -> list[int]:
    """For every row another one: the next in a fixed random order, never the row itself."""
    order = np.random.default_rng(0).permutation(rows)
    found = np.empty(rows, dtype=np.int64)
    found[order] = np.roll(order, 1)
    return found.tolist()
