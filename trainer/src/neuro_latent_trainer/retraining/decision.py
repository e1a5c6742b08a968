"""New against old on held-out rows: promoted only if it is shown to be worse nowhere, and better somewhere."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from rich.table import Table

from neuro_latent_trainer.data import Record
from neuro_latent_trainer.evaluation import tables
from neuro_latent_trainer.evaluation.evaluate import is_comparable
from neuro_latent_trainer.evaluation.paired import LOWER_IS_BETTER, Rows, compare_rows, figures_by_row
from neuro_latent_trainer.evaluation.responses import Judge
from neuro_latent_trainer.evaluation.rivals import written_and_served
from neuro_latent_trainer.evaluation.served import whole
from neuro_latent_trainer.evaluation.statistics import Floats
from neuro_latent_trainer.evaluation.tasks import Task
from neuro_latent_trainer.model import PromptOptimizer
from neuro_latent_trainer.retraining.retrain_config import RetrainConfig
from neuro_latent_trainer.settings import EvaluationConfig

Verdict = Literal["better", "not worse", "undecided", "worse"]

ORIGINAL, FEEDBACK, BOTH, TASKS = "original", "feedback", "both", "tasks"
OF_ORIGINAL = ("ce", "chrf", "preference_accuracy")
OF_FEEDBACK = ("ce", "preference_accuracy")
"""Each kind of rows by itself: better on one must not hide worse on the other. No chrF of edits: they are the old
adapter's texts with some words changed, so what it writes is nearer to them than any other good text."""
OF_THE_TEXT = ("withheld", "unchanged", "repetition")
"""Looked at for all rows together: these are about whether a text can be used at all, and a few dozen rows of shares
near 0 or 1 decide nothing."""
OF_TASKS = ("likelihood_gain", "margin_gain", "good_above_bad", "constraints_gain", "wins_gain")
"""What prompts lead to, by a responder."""
COLUMNS = {**tables.BY_SYSTEM, **{name: (tables.RESPONSES[name][0], 1.0, 3) for name in OF_TASKS}}
"""As :data:`~neuro_latent_trainer.evaluation.tables.BY_SYSTEM`, for all measures."""


@dataclass(frozen=True)
class Figure:
    """One figure of both adapters, and what follows from it.

    Attributes:
        rows: ``original``, ``feedback`` or ``both``: which rows it is of; or ``tasks``, which a responder answers.
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


@dataclass(frozen=True)
class Evidence:
    """What two adapters are judged by.

    Attributes:
        original, feedback: held-out rows that say what to write in the adapters' form; those with a failed prompt count
            for the preference accuracy too.
        tasks: for a responder, by which the new adapter must be better then; where there are any, the other kinds count
            only if there are enough of them.
        responder: asks the tasks; None where there are none.
    """

    original: Sequence[Record] = ()
    feedback: Sequence[Record] = ()
    tasks: Sequence[Task] = ()
    responder: Judge | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many there are of each kind."""
        found = {ORIGINAL: len(self.original), FEEDBACK: len(self.feedback)}
        return found if self.responder is None else {**found, TASKS: len(self.tasks)}


def too_few(evidence: Evidence, config: RetrainConfig) -> Decision | None:
    """The refusal where there is not enough to tell anything; None where there is."""
    names = {ORIGINAL: "rows of the original data", FEEDBACK: "edited answers", TASKS: "tasks"}
    short = [
        f"{count} held-out {names[kind]}, {config.least_rows} are needed"
        for kind, count in evidence.counts.items()
        if count < config.least_rows and (kind == TASKS or evidence.responder is None)
    ]
    return Decision(False, f"too few rows to decide: {'; '.join(short)}", evidence.counts) if short else None


def judge(old: PromptOptimizer, new: PromptOptimizer, evidence: Evidence, config: RetrainConfig) -> Decision:
    """Compare two adapters of one form, as they are served.

    Raises:
        ResponderError: the responder does not answer.
        ValueError: the generators split texts differently.
    """
    if refusal := too_few(evidence, config):
        return refusal
    counts = evidence.counts
    if not all(parameter.isfinite().all() for parameter in new.adapter.parameters()):
        return Decision(False, "the new adapter has weights that are not finite", counts)
    sizes = EvaluationConfig(max_length=config.max_length)
    found: dict[str, tuple[Rows, Rows]] = {}
    for kind, rows in ((ORIGINAL, evidence.original), (FEEDBACK, evidence.feedback)):
        if len(rows) < config.least_rows:
            continue
        comparable = [record for record in rows if is_comparable(record, old.adapter.config.form)]
        preferences = comparable if len(comparable) >= config.least_rows else []
        ours, theirs = (
            figures_by_row(f"{name}, {kind} rows:", model, rows, preferences, sizes)
            for name, model in (("old", old), ("new", new))
        )
        found[kind] = ours, theirs
    if evidence.responder is not None:
        prompts = [task.prompt for task in evidence.tasks]
        systems = {
            name: whole(prompts, written_and_served(model, prompts, sizes, name)[1], model.adapter.config.form)
            for name, model in (("old", old), ("new", new))
        }
        by_task = evidence.responder.by_task(evidence.tasks, systems)
        ours, theirs = (
            {measure: (by_task[measure][name], np.ones(len(by_task[measure][name]))) for measure in by_task}
            for name in systems
        )
        found[TASKS] = ours, theirs
    return decide(found, counts, config)


def decide(found: Mapping[str, tuple[Rows, Rows]], counts: dict[str, int], config: RetrainConfig) -> Decision:
    """The decision over what was found of (old, new), by kind of rows: by
    :func:`~neuro_latent_trainer.evaluation.paired.figures_by_row`, for tasks by a responder."""
    texts = [found[kind] for kind in (ORIGINAL, FEEDBACK) if kind in found]
    both = {BOTH: tuple(functools.reduce(_joined, rows) for rows in zip(*texts, strict=True))} if texts else {}
    names = {ORIGINAL: OF_ORIGINAL, FEEDBACK: OF_FEEDBACK, BOTH: OF_THE_TEXT, TASKS: OF_TASKS}
    compared = [
        (kind, name, figures[name])
        for kind, rows in {**found, **both}.items()
        for figures in [compare_rows(*rows)]
        for name in names[kind]
        if name in figures
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
        [f"{COLUMNS[f.measure][0]} ({f.rows})" for f in figures if f.verdict == verdict]
        for verdict in ("better", "undecided", "worse")
    )
    if worse:
        return Decision(False, f"worse: {', '.join(worse)}", counts, figures)
    if undecided:
        reason = f"not shown to be no worse: {', '.join(undecided)}; more held-out rows would tell"
        return Decision(False, reason, counts, figures)
    if not better:
        return Decision(False, "better in no figure", counts, figures)
    if TASKS in found and not any(f.verdict == "better" for f in figures if f.rows == TASKS):
        return Decision(False, "better in no figure of the responder", counts, figures)
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
    title = f"{counts[ORIGINAL]} rows of the original data, {counts[FEEDBACK]} edits"
    title += f", {counts[TASKS]} tasks" if TASKS in counts else ""
    found = Table(title=f"{title}, all held out, as served; value (95 % interval); shares in %")
    for column in ("", "rows", "old", "new", "new less old", "p", "verdict"):
        found.add_column(column, justify="left" if column in ("", "rows", "verdict") else "right")
    for figure in decision.figures:
        name, scale, digits = COLUMNS[figure.measure]
        values = (tables.cell(value, scale, digits) for value in (figure.old, figure.new, figure.difference))
        found.add_row(name, figure.rows, *values, f"{figure.p:.3f}", figure.verdict)
    return found
