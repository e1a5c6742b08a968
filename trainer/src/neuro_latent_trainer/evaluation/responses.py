"""What prompts lead to: a responder judges systems by the answers that their prompts get.

Formulas, for a prompt p, its enhanced form p', a good answer y+ and a bad one y-, with log-likelihoods a token:
likelihood gain log p(y+ | p') - log p(y+ | p); margin m(p) = log p(y+ | p) - log p(y- | p), and its gain m(p') - m(p).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from neuro_latent_trainer.evaluation import statistics
from neuro_latent_trainer.evaluation.statistics import Floats, Interval
from neuro_latent_trainer.evaluation.tasks import Checker, Task
from neuro_latent_trainer.responders import Responder, Usage

RAW = "raw"

HARM = -0.05
"""Nats a token. Good answers were written for the raw prompt, so an addition that asks for more costs a little."""

Prompts = Mapping[str, Sequence[str]]
"""By system, the enhanced prompt of every task."""

ByTask = dict[str, dict[str, Floats]]
"""By figure and system, a value for every task that has what the figure needs."""

FIGURE_OF = {"answers": "likelihood_gain", "checks": "constraints_gain", "alone": "wins_gain"}
MAIN_FIGURES = tuple(FIGURE_OF.values())
"""What the verdict is of: the first that was measured."""

LEAST_TASKS = 10
"""With fewer an interval tells nothing."""

LIKE_LENGTHS = 1.25
"""Two answers are alike in length up to this ratio."""

PAIRWISE = """Two assistants answered the same request.

Request:
{request}

Answer A:
{first}

Answer B:
{second}

Which answer is more useful for the person who asked? Reply with one letter: A, B, or T if they are equally good."""


class Comparison(NamedTuple):
    """Answers to enhanced prompts beside those to raw prompts, one a row.

    Attributes:
        won: 1 where the enhanced prompt's answer is found better in both orders, -1 where worse, else 0.
        agreed: whether the two orders gave the same verdict.
        alike: whether the two answers are of like length.
    """

    won: Floats
    agreed: Floats
    alike: Floats


class Judge:
    """Asks a responder with tasks.

    Args:
        responder: answers, or says how likely answers are.
        answer_tokens: the most that an answer has.
        judge: compares two answers; None is the responder itself.
    """

    def __init__(self, responder: Responder, answer_tokens: int = 256, judge: Responder | None = None) -> None:
        self._responder, self._judge = responder, judge or responder
        self._answer_tokens = answer_tokens

    @property
    def identity(self) -> str:
        """Of the responder."""
        return self._responder.identity

    @property
    def usage(self) -> Usage:
        """What asking has cost, the judge included."""
        if self._judge is self._responder:
            return self._responder.usage
        ours, theirs = vars(self._responder.usage), vars(self._judge.usage)
        return Usage(**{name: ours[name] + theirs[name] for name in ours})

    def figures(self, tasks: Sequence[Task], systems: Prompts) -> dict[str, Any]:
        """Figures by name and system, each with a 95 % paired bootstrap interval; :data:`RAW` is one of the systems."""
        found = self.by_task(tasks, systems)
        rows = by_way(tasks)
        figures: dict[str, Any] = {"rows": {FIGURE_OF[way]: len(some) for way, some in rows.items()}}
        figures |= {name: _means(values) for name, values in found.items()}
        answered = [tasks[row].kind for row in rows.get("answers", ())]
        if kinds := sorted({*answered} - {""}):
            figures["likelihood_gain_by_kind"] = {
                kind: _means({n: gain[[k == kind for k in answered]] for n, gain in found["likelihood_gain"].items()})
                for kind in kinds
            }
        return figures

    def by_task(self, tasks: Sequence[Task], systems: Prompts) -> ByTask:
        """What the figures are means of: by name and system, a value for each task that has what the figure needs."""
        prompts: Prompts = {RAW: [task.prompt for task in tasks], **systems}
        ways = {"answers": self._of_answers, "checks": self._of_checks, "alone": self._of_comparisons}
        found = {
            "added": {
                name: np.array([float(a != b) for a, b in zip(some, prompts[RAW], strict=True)])
                for name, some in prompts.items()
            }
        }
        for way, rows in by_way(tasks).items():
            found |= ways[way]([tasks[r] for r in rows], {n: [some[r] for r in rows] for n, some in prompts.items()})
        return found

    def gains(self, tasks: Sequence[Task], enhanced: Sequence[str]) -> Floats:
        """How much better than its raw prompt each enhanced prompt is, by what its task has: likelihood of the good
        answer, share of checks met, or 1, 0 or -1 by comparison of the answers."""
        found = np.zeros(len(tasks))
        for way, rows in by_way(tasks).items():
            some, texts = [tasks[row] for row in rows], [enhanced[row] for row in rows]
            raw = [task.prompt for task in some]
            if way == "answers":
                found[rows] = self._likelihoods(texts, [t.good for t in some]) - self._likelihoods(
                    raw, [t.good for t in some]
                )
            elif way == "checks":
                found[rows] = self._met(some, texts) - self._met(some, raw)
            else:
                found[rows] = self._compare(raw, texts).won
        return found

    def _of_answers(self, tasks: Sequence[Task], prompts: Prompts) -> ByTask:
        good = {n: self._likelihoods(some, [task.good for task in tasks], n) for n, some in prompts.items()}
        found = {"likelihood_gain": {name: likelihood - good[RAW] for name, likelihood in good.items()}}
        if pairs := [row for row, task in enumerate(tasks) if task.bad.strip()]:
            margins = {
                name: good[name][pairs]
                - self._likelihoods([some[row] for row in pairs], [tasks[row].bad for row in pairs], name)
                for name, some in prompts.items()
            }
            found["margin_gain"] = {name: margin - margins[RAW] for name, margin in margins.items()}
            found["good_above_bad"] = {name: (margin > 0).astype(float) for name, margin in margins.items()}
        return found

    def _of_checks(self, tasks: Sequence[Task], prompts: Prompts) -> ByTask:
        met = {name: self._met(tasks, some, name) for name, some in prompts.items()}
        return {"constraints_met": met, "constraints_gain": {name: found - met[RAW] for name, found in met.items()}}

    def _of_comparisons(self, tasks: Sequence[Task], prompts: Prompts) -> ByTask:
        raw = prompts[RAW]
        found = {name: self._compare(raw, some, name) for name, some in prompts.items() if name != RAW}
        return {
            "wins_gain": {name: one.won for name, one in found.items()},
            "wins_gain_at_like_length": {name: one.won[one.alike > 0] for name, one in found.items()},
            "orders_agree": {name: one.agreed for name, one in found.items()},
        }

    def _likelihoods(self, prompts: Sequence[str], answers: Sequence[str], name: str = "") -> Floats:
        pairs = list(zip(prompts, answers, strict=True))
        return np.array(self._responder.log_likelihoods(pairs, _stage(name, "likelihoods")))

    def _answers(self, prompts: Sequence[str], name: str) -> list[str]:
        return self._responder.answers(prompts, self._answer_tokens, _stage(name, "answers"))

    def _met(self, tasks: Sequence[Task], prompts: Sequence[str], name: str = "") -> Floats:
        checker = Checker()
        checker.check(tasks)
        answers = self._answers(prompts, name)
        return np.array([checker.met(task, answer) for task, answer in zip(tasks, answers, strict=True)])

    def _compare(self, raw: Sequence[str], enhanced: Sequence[str], name: str = "") -> Comparison:
        """Both orders are asked; where they disagree it is a tie, and equal answers are one."""
        ours, theirs = self._answers(enhanced, name), self._answers(raw, name and RAW)
        asked = [
            PAIRWISE.format(request=request, first=first, second=second)
            for left, right in ((ours, theirs), (theirs, ours))
            for request, first, second in zip(raw, left, right, strict=True)
        ]
        said = self._judge.answers(asked, 4, _stage(name, "compared"))
        verdicts = [_letter(text) for text in said]
        forth, back = np.array(verdicts[: len(raw)]), -np.array(verdicts[len(raw) :])
        same = np.array([a == b for a, b in zip(ours, theirs, strict=True)])
        lengths = np.array([[len(a) + 1, len(b) + 1] for a, b in zip(ours, theirs, strict=True)])
        return Comparison(
            won=np.where((forth == back) & ~same, forth, 0.0),
            agreed=((forth == back) | same).astype(float),
            alike=(lengths.max(1) <= LIKE_LENGTHS * lengths.min(1)).astype(float),
        )


def _letter(said: str) -> float:
    """1 where a judge says A, -1 for B, 0 for a tie or anything else."""
    found = re.match(r"\W*(?:(?:answer|option)\s+)?([AB])\b", said, re.IGNORECASE)
    return 0.0 if found is None else {"A": 1.0, "B": -1.0}[found[1].upper()]


def _stage(name: str, what: str) -> str:
    """The name of a progress bar; none for candidates, whose command has one of its own."""
    return f"{name}: {what}" if name else ""


def by_way(tasks: Sequence[Task]) -> dict[str, list[int]]:
    """Rows by what their tasks have: good ``answers``, ``checks``, or the prompt ``alone``."""
    rows: dict[str, list[int]] = {}
    for row, task in enumerate(tasks):
        rows.setdefault("answers" if task.good.strip() else "checks" if task.checks else "alone", []).append(row)
    return rows


def verdict(figures: Mapping[str, Any], system: str) -> str:
    """``helps``, ``harms``, ``does no harm`` or ``unclear``, and the figure that says so."""
    name = next(name for name in MAIN_FIGURES if name in figures)
    rows = figures["rows"][name]
    found = Interval(*figures[name][system])
    bound = HARM if name == "likelihood_gain" else 0.0
    if rows < LEAST_TASKS:
        word = "unclear"
    elif found.low > 0:
        word = "helps"
    elif found.high < 0 and found.value < bound:
        word = "harms"
    else:
        word = "does no harm" if found.low >= HARM else "unclear"
    return f"{word} ({name.replace('_', ' ')} {found.value:.3f}, {found.low:.3f} to {found.high:.3f}, of {rows} tasks)"


def _means(values: Mapping[str, Any]) -> dict[str, Any]:
    """``[value, low, high]`` by system."""
    found = {name: statistics.mean(np.asarray(rows, dtype=float)) for name, rows in values.items() if len(rows)}
    return {name: [round(value, 5) for value in (one.value, one.low, one.high)] for name, one in found.items()}
