"""What prompts lead to: a responder judges systems by the answers that their prompts get.

Formulas, for a prompt p, its enhanced form p', a good answer y+ and a bad one y-, with log-likelihoods a token:
likelihood gain log p(y+ | p') - log p(y+ | p); margin m(p) = log p(y+ | p) - log p(y- | p), and its gain m(p') - m(p).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from neuro_latent_trainer.evaluation import statistics
from neuro_latent_trainer.evaluation.statistics import Floats, Interval
from neuro_latent_trainer.evaluation.tasks import Checker, Task, with_answers
from neuro_latent_trainer.responders import Responder

RAW = "raw"

HARM = -0.05
"""Nats a token. Good answers were written for the raw prompt, so an addition that asks for more costs a little."""

Stage = Callable[[str, int], Callable[[int], None]]

MAIN_FIGURES = ("likelihood_gain", "constraints_gain", "wins_gain")
"""What the verdict is of: the first that was measured."""


def judge(
    responder: Responder,
    tasks: Sequence[Task],
    systems: Mapping[str, Sequence[str]],
    stage: Stage,
    *,
    answer_tokens: int = 256,
    judge_model: Responder | None = None,
) -> dict[str, Any]:
    """Figures by name and system, each with a 95 % paired bootstrap interval.

    Args:
        systems: for each, the enhanced prompt of every task; :data:`RAW` is always there and need not be named.
        answer_tokens: the most that the responder writes where an answer has to be written.
        judge_model: compares two answers where tasks have neither a good answer nor checks; None is the responder.
    """
    prompts = {RAW: [task.prompt for task in tasks]} | {name: list(texts) for name, texts in systems.items()}
    figures: dict[str, Any] = {}
    if rows := with_answers(tasks):
        figures |= _likelihoods(responder, [tasks[r] for r in rows], _only(prompts, rows), stage)
    if rows := [row for row, task in enumerate(tasks) if task.checks]:
        figures |= _constraints(responder, [tasks[r] for r in rows], _only(prompts, rows), stage, answer_tokens)
    if rows := [row for row, task in enumerate(tasks) if not task.good.strip() and not task.checks]:
        figures |= _wins(responder, judge_model or responder, _only(prompts, rows), stage, answer_tokens)
    figures["added"] = {
        name: statistics.mean([float(a != b) for a, b in zip(texts, prompts[RAW], strict=True)]).as_json()
        for name, texts in prompts.items()
    }
    return figures


def verdict(figures: Mapping[str, Any], system: str) -> str:
    """One word and why: ``helps``, ``harms``, ``does no harm`` or ``unclear``, at this size of responder and of data."""
    name = next(name for name in MAIN_FIGURES if name in figures)
    found = Interval(**figures[name][system])
    bound = HARM if name == "likelihood_gain" else 0.0
    if found.low > 0:
        word = "helps"
    elif found.high < 0 and found.value < bound:
        word = "harms"
    elif found.low > HARM:
        word = "does no harm"
    else:
        word = "unclear"
    return f"{word}: {name.replace('_', ' ')} {found}"


def _only(prompts: Mapping[str, list[str]], rows: Sequence[int]) -> dict[str, list[str]]:
    return {name: [texts[row] for row in rows] for name, texts in prompts.items()}


def _likelihoods(
    responder: Responder, tasks: Sequence[Task], prompts: Mapping[str, list[str]], stage: Stage
) -> dict[str, Any]:
    good, bad = {}, {}
    pairs = [row for row, task in enumerate(tasks) if task.bad.strip()]
    for name, texts in prompts.items():
        asked = [(text, task.good) for text, task in zip(texts, tasks, strict=True)]
        asked += [(texts[row], tasks[row].bad) for row in pairs]
        found = np.array(responder.log_likelihoods(asked, stage(f"{name}: likelihood of answers", len(asked))))
        good[name], bad[name] = found[: len(tasks)], found[len(tasks) :]
    gains = {name: found - good[RAW] for name, found in good.items()}
    figures: dict[str, Any] = {
        "likelihood_gain": {name: statistics.mean(gain).as_json() for name, gain in gains.items()},
        "by_kind": _by_kind(tasks, gains),
    }
    if pairs:
        margins = {name: good[name][pairs] - bad[name] for name in prompts}
        figures["margin_gain"] = {n: statistics.mean(m - margins[RAW]).as_json() for n, m in margins.items()}
        figures["good_above_bad"] = {n: statistics.mean((m > 0).astype(float)).as_json() for n, m in margins.items()}
    return figures


def _by_kind(tasks: Sequence[Task], gains: Mapping[str, Floats]) -> dict[str, Any]:
    kinds: dict[str, list[int]] = {}
    for row, task in enumerate(tasks):
        if task.kind:
            kinds.setdefault(task.kind, []).append(row)
    return {
        kind: {name: statistics.mean(gain[rows]).as_json() for name, gain in gains.items()}
        for kind, rows in sorted(kinds.items())
    }


def _constraints(
    responder: Responder, tasks: Sequence[Task], prompts: Mapping[str, list[str]], stage: Stage, most: int
) -> dict[str, Any]:
    checker, met = Checker(), {}
    for name, texts in prompts.items():
        answers = responder.answers(texts, most, stage(f"{name}: answers", len(texts)))
        met[name] = np.array([checker.met(task, answer) for task, answer in zip(tasks, answers, strict=True)])
    return {
        "constraints_met": {name: statistics.mean(found).as_json() for name, found in met.items()},
        "constraints_gain": {name: statistics.mean(found - met[RAW]).as_json() for name, found in met.items()},
    }


PAIRWISE = """Two assistants answered the same request.

Request:
{request}

Answer A:
{first}

Answer B:
{second}

Which answer is more useful for the person who asked? Reply with one letter: A, B, or T if they are equally good."""


def _wins(
    responder: Responder, judge_model: Responder, prompts: Mapping[str, list[str]], stage: Stage, most: int
) -> dict[str, Any]:
    """Each system's answers against those of the raw prompt, in both orders; verdicts that disagree are a tie."""
    raw = prompts[RAW]
    answers = {
        name: responder.answers(texts, most, stage(f"{name}: answers", len(texts))) for name, texts in prompts.items()
    }
    figures: dict[str, Any] = {"wins_gain": {}, "wins_of_like_length": {}, "orders_agree": {}}
    for name, found in answers.items():
        if name == RAW:
            continue
        first, second = (
            [PAIRWISE.format(request=request, first=a, second=b) for request, a, b in zip(raw, left, right, strict=True)]
            for left, right in ((found, answers[RAW]), (answers[RAW], found))
        )
        said = judge_model.answers([*first, *second], 4, stage(f"{name}: compared", 2 * len(raw)))
        ahead = np.array([_score(text) for text in said[: len(raw)]])
        behind = -np.array([_score(text) for text in said[len(raw) :]])
        same_text = np.array([a == b for a, b in zip(found, answers[RAW], strict=True)])
        agreed = (ahead == behind) | same_text
        gain = np.where(agreed & ~same_text, ahead, 0.0)
        alike = [
            row for row, (a, b) in enumerate(zip(found, answers[RAW], strict=True))
            if 0.8 <= (len(a) + 1) / (len(b) + 1) <= 1.25
        ]  # fmt: skip
        figures["wins_gain"][name] = statistics.mean(gain).as_json()
        if alike:
            figures["wins_of_like_length"][name] = statistics.mean(gain[alike]).as_json()
        figures["orders_agree"][name] = statistics.mean(agreed.astype(float)).as_json()
    return figures


def _score(said: str) -> float:
    """1 for A, -1 for B, 0 for a tie or anything else."""
    return {"A": 1.0, "B": -1.0}.get(said.strip()[:1].upper(), 0.0)
