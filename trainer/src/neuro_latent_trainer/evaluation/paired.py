"""Two adapters on the same rows, with a paired test of every figure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from neuro_latent_trainer.data import Record
from neuro_latent_trainer.evaluation import measures, statistics
from neuro_latent_trainer.evaluation.evaluate import (
    chosen,
    is_comparable,
    prefers_success,
    targets,
)
from neuro_latent_trainer.evaluation.served import as_served
from neuro_latent_trainer.evaluation.systems import Conditioned, adapted
from neuro_latent_trainer.model import PromptOptimizer
from neuro_latent_trainer.settings import EvaluationConfig

Rows = dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]
"""By figure: a value and a weight for every row."""

LOWER_IS_BETTER = frozenset({"ce", "unchanged", "unneeded", "rejected", "withheld", "repetition"})


@torch.no_grad()
def compare(
    first: PromptOptimizer,
    second: PromptOptimizer,
    records: Sequence[Record],
    *,
    preferences: Sequence[Record] = (),
    config: EvaluationConfig | None = None,
) -> dict[str, Any]:
    """Figures of two adapters as they are served, behind gate and guard, and of the second less the first.

    Args:
        first, second: models with their adapters, of one form; their generators must split texts alike.
        records: the rows to compare on.
        preferences: rows with an enhanced and a failed prompt each.

    Returns:
        ``rows``, ``form``, and by figure ``first``, ``second``, ``difference`` (value and interval), ``p`` of a paired
        randomization test, and ``better``: ``first``, ``second``, or ``neither`` where the interval holds 0.

    Raises:
        ValueError: there are too few rows, or the adapters' forms or the generators' tokenizers differ.
    """
    config = config or EvaluationConfig()
    form, other = first.adapter.config.form, second.adapter.config.form
    if form != other:
        raise ValueError(f"one adapter is of the {form} form, the other of the {other} form: they do not compare")
    rows = chosen(records, form, config.rows)
    ours, theirs = (
        figures_by_row(name, model, rows, preferences, config) for name, model in (("first", first), ("second", second))
    )
    return {"rows": len(rows), "form": form, **compare_rows(ours, theirs)}


def compare_rows(ours: Rows, theirs: Rows) -> dict[str, Any]:
    """The figures of :func:`compare`, without ``rows`` and ``form``, of what :func:`figures_by_row` found for each.

    Raises:
        ValueError: the generators' tokenizers differ.
    """
    if "ce" in ours and not np.array_equal(ours["ce"][1], theirs["ce"][1]):
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
) -> Rows:
    """What the figures of an adapter, as it is served, are means of.

    Args:
        name: of the adapter, for the progress bars.
        model: with the adapter.
        rows: that say what to write in the adapter's form.
        preferences: those count of which the adapter could write both texts.
    """
    form = model.adapter.config.form
    raw, gold = [r.raw_prompt for r in rows], targets(rows, form)
    system = Conditioned(model.generator, adapted(model), config)
    losses = system.losses(raw, gold, f"{name} scores")
    texts, reasons = as_served(model, system, raw, system.write(raw, f"{name} writes"))
    found: Rows = {
        "ce": (losses.per_token, losses.tokens),
        **measures.by_row(raw, gold, texts, form),
        "withheld": (np.array([float(bool(reason)) for reason in reasons]), np.ones(len(raw))),
    }
    del found["rejected"]  # the guard has had its say
    if comparable := [record for record in preferences if is_comparable(record, form)]:
        found["preference_accuracy"] = (prefers_success(system, comparable, form), np.ones(len(comparable)))
    return found
