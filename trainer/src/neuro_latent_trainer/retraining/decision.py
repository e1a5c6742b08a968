"""New against old on held-out rows: promoted only if it is shown to be worse nowhere, and better somewhere."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from rich.table import Table

from neuro_latent_trainer.data import Record
from neuro_latent_trainer.evaluation import tables
from neuro_latent_trainer.evaluation.evaluate import is_comparable
from neuro_latent_trainer.evaluation.paired import LOWER_IS_BETTER, Rows, compare_rows, figures_by_row
from neuro_latent_trainer.evaluation.statistics import Floats
from neuro_latent_trainer.model import PromptOptimizer
from neuro_latent_trainer.retraining.retrain_config import RetrainConfig
from neuro_latent_trainer.settings import EvaluationConfig

Verdict = Literal["better", "not worse", "undecided", "worse"]

ORIGINAL, FEEDBACK, BOTH = "original", "feedback", "both"
OF_ORIGINAL = ("ce", "chrf", "preference_accuracy")
OF_FEEDBACK = ("ce", "preference_accuracy")
"""Each kind of rows by itself: better on one must not hide worse on the other. No chrF of edits: they are the old
adapter's texts with some words changed, so what it writes is nearer to them than any other good text."""
OF_THE_TEXT = ("withheld", "unchanged", "repetition")
"""Looked at for all rows together: these are about whether a text can be used at all, and a few dozen rows of shares
near 0 or 1 decide nothing."""


@dataclass(frozen=True)
class Figure:
    """One figure of both adapters, and what follows from it.

    Attributes:
        rows: ``original``, ``feedback`` or ``both``: which rows it is of.
        measure: as in :class:`~neuro_latent_trainer.retraining.retrain_config.Margins`.
        old, new, difference: value and 95 % interval; the difference is new less old.
        p: of the paired randomization test.
    """

    rows: str
    measure: str
    old: dict[str, float]
    new: dict[str, float]
    difference: dict[str, float]
    p: float
    verdict: Verdict


@dataclass(frozen=True)
class Decision:
    """Whether the new adapter may take the old one's place, and why.

    Attributes:
        counts: held-out rows by kind.
        figures: empty where there were too few rows to look at.
    """

    promote: bool
    reason: str
    counts: dict[str, int]
    figures: tuple[Figure, ...] = ()


def too_few(original: Sequence[Record], feedback: Sequence[Record], config: RetrainConfig) -> Decision | None:
    """The refusal where there are not enough held-out rows to tell anything; None where there are."""
    counts = {ORIGINAL: len(original), FEEDBACK: len(feedback)}
    names = {ORIGINAL: "rows of the original data", FEEDBACK: "edited answers"}
    short = [
        f"{count} held-out {names[kind]}, {config.least_rows} are needed"
        for kind, count in counts.items()
        if count < config.least_rows
    ]
    return Decision(False, f"too few rows to decide: {'; '.join(short)}", counts) if short else None


def judge(
    old: PromptOptimizer,
    new: PromptOptimizer,
    original: Sequence[Record],
    feedback: Sequence[Record],
    config: RetrainConfig,
) -> Decision:
    """Compare two adapters of one form, as they are served, on held-out rows that say what to write in that form; those
    with a failed prompt count for the preference accuracy too.

    Raises:
        ValueError: the generators split texts differently.
    """
    if refusal := too_few(original, feedback, config):
        return refusal
    counts = {ORIGINAL: len(original), FEEDBACK: len(feedback)}
    if not all(parameter.isfinite().all() for parameter in new.adapter.parameters()):
        return Decision(False, "the new adapter has weights that are not finite", counts)
    sizes = EvaluationConfig(max_length=config.max_length)
    found: dict[str, tuple[Rows, Rows]] = {}
    for kind, rows in ((ORIGINAL, original), (FEEDBACK, feedback)):
        comparable = [record for record in rows if is_comparable(record, old.adapter.config.form)]
        preferences = comparable if len(comparable) >= config.least_rows else []
        ours, theirs = (
            figures_by_row(f"{name}, {kind} rows:", model, rows, preferences, sizes)
            for name, model in (("old", old), ("new", new))
        )
        found[kind] = ours, theirs
    return decide(found[ORIGINAL], found[FEEDBACK], counts, config)


def decide(
    original: tuple[Rows, Rows], feedback: tuple[Rows, Rows], counts: dict[str, int], config: RetrainConfig
) -> Decision:
    """The decision over what :func:`~neuro_latent_trainer.evaluation.paired.figures_by_row` found of (old, new)."""
    both = tuple(_joined(*rows) for rows in zip(original, feedback, strict=True))
    kinds = ((ORIGINAL, original, OF_ORIGINAL), (FEEDBACK, feedback, OF_FEEDBACK), (BOTH, both, OF_THE_TEXT))
    compared = [
        (kind, name, found[name])
        for kind, rows, names in kinds
        for found in [compare_rows(*rows)]
        for name in names
        if name in found
    ]
    figures = tuple(
        Figure(
            rows,
            name,
            figure["first"],
            figure["second"],
            figure["difference"],
            figure["p"],
            _verdict(name, figure, len(compared), config),
        )
        for rows, name, figure in compared
    )
    better, undecided, worse = (
        [f"{tables.BY_SYSTEM[f.measure][0]} ({f.rows})" for f in figures if f.verdict == verdict]
        for verdict in ("better", "undecided", "worse")
    )
    if worse:
        return Decision(False, f"worse: {', '.join(worse)}", counts, figures)
    if undecided:
        reason = f"not shown to be no worse: {', '.join(undecided)}; more held-out rows would tell"
        return Decision(False, reason, counts, figures)
    if not better:
        return Decision(False, "better in no figure", counts, figures)
    return Decision(True, f"worse in no figure, better: {', '.join(better)}", counts, figures)


def _joined(first: Rows, second: Rows) -> Rows:
    def both(name: str, part: int) -> Floats:
        return np.concatenate([first[name][part], second[name][part]])

    return {name: (both(name, 0), both(name, 1)) for name in first.keys() & second.keys()}


def _verdict(name: str, figure: dict[str, Any], figures: int, config: RetrainConfig) -> Verdict:
    """What one figure says.

    Not worse has to be shown: the whole interval must lie within the margin (a test of non-inferiority). That all
    figures must pass it needs no correction for their number (Berger 1982). One better one among many is found by
    chance, so there the level is divided by their number (Bonferroni).
    """
    sign = -1 if name in LOWER_IS_BETTER else 1
    value, *ends = (sign * figure["difference"][end] for end in ("value", "low", "high"))
    worst, best = sorted(ends)
    margin = getattr(config.margins, name)
    if not all(map(math.isfinite, (value, worst, best))):
        return "worse"
    if value > 0 and figure["p"] * figures <= config.significance:
        return "better"
    if worst >= -margin:
        return "not worse"
    return "worse" if value < -margin or best < 0 else "undecided"


def table(decision: Decision) -> Table:
    """For the terminal."""
    counts = decision.counts
    title = f"{counts[ORIGINAL]} rows of the original data, {counts[FEEDBACK]} edits, all held out, as served"
    found = Table(title=f"{title}; value (95 % interval); shares in %")
    for column in ("", "rows", "old", "new", "new less old", "p", "verdict"):
        found.add_column(column, justify="left" if column in ("", "rows", "verdict") else "right")
    for figure in decision.figures:
        name, scale, digits = tables.BY_SYSTEM[figure.measure]
        values = (tables.cell(value, scale, digits) for value in (figure.old, figure.new, figure.difference))
        found.add_row(name, figure.rows, *values, f"{figure.p:.3f}", figure.verdict)
    return found
