"""Two adapters on the same rows, with a paired test of every figure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from neuro_latent_trainer.data import Record
from neuro_latent_trainer.evaluation import measures, statistics
from neuro_latent_trainer.evaluation.evaluate import (
    EvaluationConfig,
    Stage,
    chosen,
    conditioned,
    is_triple,
    prefers_success,
    silent,
)
from neuro_latent_trainer.evaluation.systems import adapted, guarded
from neuro_latent_trainer.model import PromptOptimizer

Rows = dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]
"""By figure: a value and a weight for every row."""

LOWER_IS_BETTER = frozenset({"ce", "copied", "degenerate", "off_subject", "repetition"})


@torch.no_grad()
def compare(
    first: PromptOptimizer,
    second: PromptOptimizer,
    records: Sequence[Record],
    *,
    preferences: Sequence[Record] = (),
    config: EvaluationConfig | None = None,
    stage: Stage = silent,
) -> dict[str, Any]:
    """Figures of two adapters behind the guard, as they are served, and of the second less the first.

    Args:
        first, second: models with their adapters; their generators must split texts alike.
        records: the rows to compare on.
        preferences: rows with an enhanced and a failed prompt each.
        config: sizes.
        stage: told what happens.

    Returns:
        ``rows``, and by figure ``first``, ``second``, ``difference`` (value and interval), ``p`` of a paired
        randomization test, and ``better``: ``first``, ``second``, or ``neither`` where the interval holds 0.

    Raises:
        ValueError: there are too few rows, or the generators' tokenizers differ.
    """
    config = config or EvaluationConfig()
    rows = chosen(records, config.rows)
    ours, theirs = (
        figures_by_row(name, model, rows, preferences, config, stage)
        for name, model in (("first", first), ("second", second))
    )
    return {"rows": len(rows), **compare_rows(ours, theirs)}


def compare_rows(ours: Rows, theirs: Rows) -> dict[str, Any]:
    """The figures of :func:`compare`, without ``rows``, of what :func:`figures_by_row` found for each.

    Raises:
        ValueError: the generators' tokenizers differ.
    """
    if not np.array_equal(ours["ce"][1], theirs["ce"][1]):
        raise ValueError("the generators of the two adapters split texts differently: their losses do not compare")
    figures: dict[str, Any] = {}
    for name, (values, weights) in ours.items():
        others = theirs[name][0]
        if not weights.sum() > 0:
            continue
        difference = statistics.mean(others - values, weights)
        figures[name] = {
            "first": statistics.mean(values, weights).as_json(),
            "second": statistics.mean(others, weights).as_json(),
            "difference": difference.as_json(),
            "p": round(statistics.sign_flips(others - values, weights), 4),
            "better": _better(difference, lower=name in LOWER_IS_BETTER),
        }
    return figures


def _better(difference: statistics.Interval, lower: bool) -> str:
    if difference.low <= 0 <= difference.high:
        return "neither"
    return "second" if (difference.value > 0) != lower else "first"


@torch.no_grad()
def figures_by_row(
    name: str,
    model: PromptOptimizer,
    rows: Sequence[Record],
    preferences: Sequence[Record],
    config: EvaluationConfig,
    stage: Stage = silent,
) -> Rows:
    """What the figures of an adapter, behind the guard, are means of.

    Args:
        name: of the adapter, for ``stage``.
        model: with the adapter.
        rows: with an enhanced prompt each.
        preferences: those with an enhanced and a failed prompt count.
        config: sizes.
        stage: told what happens.
    """
    raw, gold = [r.raw_prompt for r in rows], [r.enhanced_prompt or "" for r in rows]
    system = conditioned(model.generator, adapted(model), config)
    losses = system.losses(raw, gold, stage(f"{name} scores", len(raw)))
    written = system.write(raw, stage(f"{name} writes", len(raw)))
    texts = guarded(raw, written)
    kept = np.array([text == own for text, own in zip(texts, written, strict=True)], dtype=np.float64)
    found: Rows = {
        "ce": (losses.per_token, losses.tokens),
        **measures.by_row(raw, gold, texts),
        # Behind the guard nothing is degenerate, off the subject or without its literals; this is how often without it.
        "passed_guard": (kept, np.ones(len(kept))),
    }
    triples = [record for record in preferences if is_triple(record)]
    if triples:
        found["preference_accuracy"] = (prefers_success(system, triples), np.ones(len(triples)))
    return found
