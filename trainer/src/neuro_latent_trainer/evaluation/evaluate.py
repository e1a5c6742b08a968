"""One evaluation: all systems on the same rows.

Shape letters: ``N`` rows, ``P`` soft prompts, ``D`` generator width, ``E`` encoder width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from neuro_latent_trainer.backbones import Generator
from neuro_latent_trainer.data import Record, sample_records
from neuro_latent_trainer.evaluation import latent, measures, statistics
from neuro_latent_trainer.evaluation.baselines import Baselines
from neuro_latent_trainer.evaluation.statistics import Floats, Interval
from neuro_latent_trainer.evaluation.systems import (
    Condition,
    Conditioned,
    Losses,
    Nearest,
    System,
    Unchanged,
    adapted,
    embeddings,
    guarded,
    instructed,
    prompted,
    softly_prompted,
)
from neuro_latent_trainer.model import PromptOptimizer

RAW, NEAREST, INSTRUCTION, PROMPT_TUNING = "raw", "nearest", "instruction", "prompt tuning"
ADAPTER, GUARDED, FULL_FINETUNE = "adapter", "adapter, guarded", "full fine-tune"

Stage = Callable[[str, int], Callable[[int], None]]
"""Begins a stage with so many rows; returns what to call with the rows that are done."""


def silent(name: str, rows: int) -> Callable[[int], None]:
    """A :data:`Stage` that tells nobody."""
    return lambda done: None


@dataclass(frozen=True, slots=True)
class EvaluationConfig:
    """What is looked at.

    Attributes:
        rows: the most rows, chosen by a hash of their raw prompts, so that a file's order does not matter.
        max_length: the most tokens that a system writes.
        max_target_tokens: how much of a gold text counts for the cross-entropy.

    Raises:
        ValueError: a number is below 2 (rows) or 1.
    """

    rows: int = 2000
    max_length: int = 96
    max_target_tokens: int = 128

    def __post_init__(self) -> None:
        for name, least in (("rows", 2), ("max_length", 1), ("max_target_tokens", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures by name and, where there are several, by system; the texts that they are of.

    Attributes:
        figures: JSON types only.
        raw, gold: prompts and what they should become.
        texts: by system.
    """

    figures: dict[str, Any]
    raw: list[str]
    gold: list[str]
    texts: dict[str, list[str]]


def conditioned(generator: Generator, condition: Condition, config: EvaluationConfig) -> Conditioned:
    """A T5 behind some encoder states, at the sizes of an evaluation."""
    return Conditioned(generator, condition, config.max_length, config.max_target_tokens)


def chosen(records: Sequence[Record], most: int) -> list[Record]:
    """Records with an enhanced prompt, at most ``most``, by a hash of their raw prompts.

    Raises:
        ValueError: fewer than 2 have one.
    """
    found = [record for record in records if record.enhanced_prompt is not None]
    if len(found) < 2:
        raise ValueError(f"an evaluation needs at least 2 rows with an enhanced prompt, not {len(found)}")
    return sample_records(found, most)


def evaluate(
    model: PromptOptimizer,
    records: Sequence[Record],
    *,
    train: Sequence[Record] = (),
    preferences: Sequence[Record] = (),
    baselines: Baselines | None = None,
    config: EvaluationConfig | None = None,
    stage: Stage = silent,
) -> Evaluation:
    """Compare an adapter with baselines.

    Args:
        model: with the adapter.
        records: the rows to compare on.
        train: what the adapter was trained on, for the nearest neighbour.
        preferences: rows with an enhanced and a failed prompt each.
        baselines: prompt tuning and full fine-tuning, trained here if they are not yet.
        config: sizes.
        stage: told what happens.

    Raises:
        ValueError: there are too few rows.
    """
    config = config or EvaluationConfig()
    if not all(map(is_triple, preferences)):
        raise ValueError("each row of preferences needs an enhanced and a failed prompt")
    rows = chosen(records, config.rows)
    raw, gold = [r.raw_prompt for r in rows], [r.enhanced_prompt or "" for r in rows]
    systems = _systems(model, train, baselines, config, stage)
    scored = {name: system for name, system in systems.items() if isinstance(system, Conditioned)}

    with torch.no_grad():
        texts = {
            # T5 is asked with the raw prompt alone for likelihoods; as a text, the raw prompt stands for itself.
            name: (Unchanged() if name == RAW else system).write(raw, stage(f"{name} writes", len(raw)))
            for name, system in systems.items()
        }
        texts[GUARDED] = guarded(raw, texts[ADAPTER])
        measured = {name: measures.measure(raw, gold, written) for name, written in texts.items()}
        losses = {name: system.losses(raw, gold, stage(f"{name} scores", len(raw))) for name, system in scored.items()}
        figures: dict[str, Any] = {
            "rows": len(rows),
            "ce": {name: _cross_entropy(found).as_json() for name, found in losses.items()},
            **{
                name: {system: getattr(found, name).as_json() for system, found in measured.items()}
                for name in ("chrf", "rouge_l", "copied", "literals_kept", "degenerate", "off_subject", "repetition")
            },
            **{
                name: {system: round(getattr(found, name), 4) for system, found in measured.items()}
                for name in ("self_bleu", "length_ratio")
            },
            "better_than": {
                name: _better_than(losses[ADAPTER], losses[name], texts[ADAPTER], texts[name], gold)
                for name in losses
                if name != ADAPTER
            },
            **_share_of_gain(losses),
            **_of_adapter(model, config, raw, gold, losses[ADAPTER]),
        }
        if preferences:
            figures["preference_accuracy"] = {
                name: statistics.mean(prefers_success(system, preferences)).as_json() for name, system in scored.items()
            }
            figures["preference_by_intent"] = {
                name: found.as_json() for name, found in preference_by_intent(model, preferences).items()
            }
    return Evaluation(figures, raw, gold, texts)


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
    rows = chosen(records, config.rows)
    raw, gold = [r.raw_prompt for r in rows], [r.enhanced_prompt or "" for r in rows]
    system = conditioned(model.generator, adapted(model), config)
    own = system.losses(raw, gold)
    figures = {"ce": {ADAPTER: _cross_entropy(own).as_json()}, **_of_adapter(model, config, raw, gold, own)}
    if preferences:
        figures["preference_accuracy"] = {ADAPTER: statistics.mean(prefers_success(system, preferences)).as_json()}
        figures["preference_by_intent"] = {
            name: found.as_json() for name, found in preference_by_intent(model, preferences).items()
        }
    return figures


def _of_adapter(
    model: PromptOptimizer, config: EvaluationConfig, raw: list[str], gold: list[str], own: Losses
) -> dict[str, Any]:
    """What only the adapter has: the use of its soft prompts, and its intents."""
    raw_NE, gold_NE = embeddings(model, raw), embeddings(model, gold)
    return {**_usage(model, config, raw, gold, raw_NE, own), **_latent(model, raw_NE, gold_NE)}


def _systems(
    model: PromptOptimizer,
    train: Sequence[Record],
    baselines: Baselines | None,
    config: EvaluationConfig,
    stage: Stage,
) -> dict[str, System]:
    """All that is compared, in the order of the reports."""
    generator, instruction = model.generator, model.adapter.config.instruction

    systems: dict[str, System] = {RAW: conditioned(generator, instructed(generator, ""), config)}
    known = [record for record in train if record.enhanced_prompt is not None]
    if known:
        systems[NEAREST] = Nearest(model, [r.raw_prompt for r in known], [r.enhanced_prompt or "" for r in known])
    systems[INSTRUCTION] = conditioned(generator, instructed(generator, instruction), config)
    if baselines is not None:
        soft_PD = baselines.prompt_tuning(stage("prompt tuning learns", baselines.steps))
        systems[PROMPT_TUNING] = conditioned(generator, prompted(generator, soft_PD), config)
    systems[ADAPTER] = conditioned(generator, adapted(model), config)
    if baselines is not None:
        tuned = baselines.full_finetune(stage("full fine-tuning learns", baselines.steps))
        systems[FULL_FINETUNE] = conditioned(tuned, instructed(tuned, instruction), config)
    return systems


def _better_than(
    ours: Losses, theirs: Losses, our_texts: list[str], their_texts: list[str], gold: list[str]
) -> dict[str, Any]:
    """How much better the adapter is than another system, row by row: loss saved, chrF won."""
    chrf = measures.chrf(our_texts, gold) - measures.chrf(their_texts, gold)
    return {
        "ce": statistics.mean(theirs.per_token - ours.per_token, ours.tokens).as_json(),
        "chrf": statistics.mean(chrf).as_json(),
    }


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


def prefers_success(system: Conditioned, preferences: Sequence[Record]) -> Floats:
    """For each row, 1 where a system finds the enhanced prompt likelier, token for token, than the failed one.

    Args:
        system: scores the texts.
        preferences: rows that are triples.
    """
    raw, success, failed = _versions(preferences)
    return _above(-system.losses(raw, success).per_token, -system.losses(raw, failed).per_token)


@torch.no_grad()
def preference_by_intent(model: PromptOptimizer, preferences: Sequence[Record]) -> dict[str, Interval]:
    """How often the enhanced prompt's embedding is nearer, by cosine, than the failed one's: to the raw prompt's, and
    to the optimized intent."""
    raw, success, failed = (model.adapter.standardizer(embeddings(model, texts)) for texts in _versions(preferences))
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


def _versions(preferences: Sequence[Record]) -> tuple[list[str], list[str], list[str]]:
    return (
        [record.raw_prompt for record in preferences],
        [record.enhanced_prompt or "" for record in preferences],
        [record.failed_prompts[0] for record in preferences],
    )


def _above(success: Floats, failed: Floats) -> Floats:
    """1 where the first is larger, a half where they are equal."""
    above: Floats = (success > failed) + 0.5 * (success == failed)
    return above


def _cross_entropy(losses: Losses) -> Interval:
    return statistics.mean(losses.per_token, losses.tokens)


def _usage(
    model: PromptOptimizer,
    config: EvaluationConfig,
    raw: list[str],
    gold: list[str],
    raw_NE: Tensor,
    own: Losses,
) -> dict[str, Any]:
    """How much worse the loss is with another row's soft prompts, and with the mean ones."""
    soft_NPD = torch.cat([model.adapter(part) for part in raw_NE.split(256)])
    # Each row gets the soft prompts of the next one in a fixed random order: never its own.
    order = np.random.default_rng(0).permutation(len(raw))
    other: dict[str, Tensor] = {raw[a]: soft_NPD[b] for a, b in zip(order, np.roll(order, 1), strict=True)}
    generator, memory = model.generator, model.adapter.config.memory_prompts
    changes = {
        "shuffled": softly_prompted(generator, lambda prompts: torch.stack([other[p] for p in prompts]), memory),
        "mean": prompted(generator, soft_NPD.mean(0), memory),
    }
    gaps = {}
    for name, condition in changes.items():
        changed = conditioned(generator, condition, config).losses(raw, gold)
        gaps[name] = statistics.mean(changed.per_token - own.per_token, own.tokens).as_json()
    return {
        "usage_gap": {ADAPTER: gaps["shuffled"]},
        "usage_gap_to_mean": {ADAPTER: gaps["mean"]},
        "effective_rank": {ADAPTER: round(latent.effective_rank(soft_NPD), 3)},
    }


def _latent(model: PromptOptimizer, raw_NE: Tensor, gold_NE: Tensor) -> dict[str, Any]:
    intent_NE = model.adapter.intent(raw_NE)
    raw_NE, gold_NE = (model.adapter.standardizer(embedding_NE) for embedding_NE in (raw_NE, gold_NE))
    return {
        "retrieval": {
            "raw": latent.retrieval(raw_NE, gold_NE).as_json(),
            ADAPTER: latent.retrieval(intent_NE, gold_NE).as_json(),
        },
        "intent_r2": {ADAPTER: round(latent.explained(intent_NE, gold_NE), 5)},
    }
