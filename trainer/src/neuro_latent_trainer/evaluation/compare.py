"""One evaluation: all systems on the same rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuro_latent_trainer.data import Record, sample_records
from neuro_latent_trainer.evaluation import latent, measures, statistics
from neuro_latent_trainer.evaluation.statistics import Interval
from neuro_latent_trainer.evaluation.systems import (
    Conditioned,
    Losses,
    Nearest,
    System,
    Unchanged,
    adapted,
    embeddings,
    guarded,
    instructed,
)
from neuro_latent_trainer.model import PromptOptimizer

ADAPTER, INSTRUCTION = "adapter", "instruction"
GUARDED = f"{ADAPTER}, guarded"

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


def chosen(records: Sequence[Record], most: int) -> list[Record]:
    """Records with an enhanced prompt, at most ``most``, by a hash of their raw prompts.

    Raises:
        ValueError: fewer than 2 have one.
    """
    found = [record for record in records if record.enhanced_prompt is not None]
    if len(found) < 2:
        raise ValueError(f"an evaluation needs at least 2 rows with an enhanced prompt, not {len(found)}")
    return sample_records(found, most)


@torch.no_grad()
def evaluate(
    model: PromptOptimizer,
    records: Sequence[Record],
    *,
    train: Sequence[Record] = (),
    preferences: Sequence[Record] = (),
    config: EvaluationConfig | None = None,
    stage: Stage = silent,
) -> Evaluation:
    """Compare an adapter with the raw prompt, an instruction in words and, with ``train``, the nearest neighbour.

    Args:
        model: with the adapter.
        records: the rows to compare on.
        train: what the adapter was trained on, for the nearest neighbour.
        preferences: rows with an enhanced and a failed prompt each.
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

    def conditioned(name: str, condition: Any) -> Conditioned:
        return Conditioned(name, model, condition, config.max_length, config.max_target_tokens)

    ours, words = conditioned(ADAPTER, adapted(model)), conditioned(INSTRUCTION, instructed(model))
    systems: list[System] = [Unchanged(), words, ours]
    known = [record for record in train if record.enhanced_prompt is not None]
    if known:
        systems.insert(1, Nearest(model, [r.raw_prompt for r in known], [r.enhanced_prompt or "" for r in known]))

    texts: dict[str, list[str]] = {}
    for system in systems:
        texts[system.name] = system.write(raw, stage(f"{system.name} writes", len(raw)))
    texts[GUARDED] = guarded(raw, texts[ADAPTER])
    measured = {name: measures.measure(raw, gold, written) for name, written in texts.items()}

    losses = {system.name: system.losses(raw, gold) for system in (words, ours)}
    raw_NE = embeddings(model, raw)
    figures: dict[str, Any] = {
        "rows": len(rows),
        "ce": {name: _cross_entropy(found).as_json() for name, found in losses.items()},
        "ce_gain": statistics.mean(
            losses[INSTRUCTION].per_token - losses[ADAPTER].per_token, losses[ADAPTER].tokens
        ).as_json(),
        **{
            name: {system: getattr(found, name).as_json() for system, found in measured.items()}
            for name in ("chrf", "copied", "literals_kept", "degenerate")
        },
        "length_ratio": {system: round(found.length_ratio, 4) for system, found in measured.items()},
        **_usage(model, conditioned, raw, gold, raw_NE, losses[ADAPTER]),
        **_latent(model, raw_NE, embeddings(model, gold)),
    }
    if preferences:
        figures["preference_accuracy"] = {
            system.name: preference_accuracy(system, preferences).as_json() for system in (words, ours)
        }
    return Evaluation(figures, raw, gold, texts)


def is_triple(record: Record) -> bool:
    """Whether a record has a raw, an enhanced and a failed prompt."""
    return record.enhanced_prompt is not None and bool(record.failed_prompts)


def preference_accuracy(system: Conditioned, preferences: Sequence[Record]) -> Interval:
    """How often a system finds the enhanced prompt likelier, token for token, than the failed one; a tie is a half.

    Args:
        system: scores the texts.
        preferences: rows that are triples.
    """
    raw = [record.raw_prompt for record in preferences]
    success = system.losses(raw, [record.enhanced_prompt or "" for record in preferences]).per_token
    failed = system.losses(raw, [record.failed_prompts[0] for record in preferences]).per_token
    return statistics.mean((success < failed) + 0.5 * (success == failed))


def _cross_entropy(losses: Losses) -> Interval:
    return statistics.mean(losses.per_token, losses.tokens)


def _usage(
    model: PromptOptimizer,
    conditioned: Callable[[str, Any], Conditioned],
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
    mean_PD = soft_NPD.mean(0)

    def shuffled(prompts: list[str], soft: Tensor) -> Tensor:
        return torch.stack([other[prompt] for prompt in prompts])

    def averaged(prompts: list[str], soft: Tensor) -> Tensor:
        return mean_PD.expand_as(soft)

    gaps = {}
    for name, change in (("shuffled", shuffled), ("mean", averaged)):
        changed = conditioned(name, adapted(model, change)).losses(raw, gold)
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
