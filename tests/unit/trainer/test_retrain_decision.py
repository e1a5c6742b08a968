"""New against old: promoted only if shown to be worse nowhere and better somewhere."""

import json
import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch

from neuro_latent_trainer.evaluation.paired import Rows
from neuro_latent_trainer.model import PromptOptimizer
from neuro_latent_trainer.retraining.decision import Decision, Evidence, decide, judge, table, too_few
from neuro_latent_trainer.retraining.retrain_config import Margins, RetrainConfig
from tests.unit.trainer.conftest import sample_records

COUNT = 40
SHARES = ("preference_accuracy", "withheld", "unchanged", "repetition")
CONFIG = RetrainConfig(least_rows=4, max_length=6)


def found(count: int = COUNT, spread: float = 0.0, **changes: float) -> tuple[Rows, Rows]:
    """Figures of an old adapter and of a new one that differs by ``changes``, give or take ``spread`` of each."""
    rng = np.random.default_rng(0)
    old: Rows = {
        "ce": (rng.uniform(2, 4, count), np.full(count, 30.0)),
        "chrf": (rng.uniform(20, 60, count), ones(count)),
    }
    old |= {name: (np.full(count, 0.5), ones(count)) for name in SHARES}
    noise = np.resize([1.0, -1.0], count)  # its mean is 0 in every even number of rows
    new = {
        name: (values + changes.get(name, 0.0) + (spread * changes.get(name, 0.0)) * noise, weights)
        for name, (values, weights) in old.items()
    }
    return old, new


def ones(count: int) -> Any:
    return np.ones(count)


def decided(original: tuple[Rows, Rows], feedback: tuple[Rows, Rows], **settings: Any) -> Decision:
    kinds = {"original": original, "feedback": feedback}
    return decide(kinds, dict.fromkeys(kinds, COUNT), RetrainConfig(**settings))


def verdicts(decision: Decision) -> dict[str, str]:
    return {f"{figure.measure} {figure.rows}": figure.verdict for figure in decision.figures}


def test_better_somewhere_and_worse_nowhere_is_promoted() -> None:
    decision = decided(found(), found(ce=-0.3))
    assert decision.promote
    assert decision.reason == "worse in no figure, better: cross-entropy (feedback)"
    assert {name for name, verdict in verdicts(decision).items() if verdict == "better"} == {"ce feedback"}


def test_the_same_adapter_is_refused() -> None:
    decision = decided(found(), found())
    assert not decision.promote
    assert decision.reason == "better in no figure"
    assert set(verdicts(decision).values()) == {"not worse"}


@pytest.mark.parametrize(
    ("original", "feedback", "worse"),
    [
        ({"ce": 0.1}, {"ce": -1.0}, "cross-entropy (original)"),
        ({"chrf": -6.0}, {"ce": -1.0}, "chrF (original)"),
        ({}, {"ce": 0.2}, "cross-entropy (feedback)"),
        ({"ce": -0.5, "preference_accuracy": -0.2}, {}, "prefers success (original)"),
        ({"withheld": 0.2}, {"withheld": 0.2, "ce": -1.0}, "withheld (both)"),
        ({"unchanged": 0.2}, {"unchanged": 0.2, "ce": -1.0}, "unchanged (both)"),
    ],
)
def test_worse_in_one_figure_is_refused_whatever_the_others_say(
    original: dict[str, float], feedback: dict[str, float], worse: str
) -> None:
    decision = decided(found(**original), found(**feedback))
    assert not decision.promote
    assert decision.reason == f"worse: {worse}"


def test_a_little_worse_within_the_margin_is_not_worse() -> None:
    assert decided(found(ce=0.04), found(ce=-0.3)).promote
    assert not decided(found(ce=0.04), found(ce=-0.3), margins=Margins(ce=0.03)).promote


def test_what_the_rows_cannot_tell_is_no_promotion() -> None:
    """The mean is within the margin, its interval is not: these rows do not show that it is no worse."""
    decision = decided(found(ce=0.02, spread=20), found(ce=-0.3))
    assert verdicts(decision)["ce original"] == "undecided"
    assert not decision.promote
    assert "more held-out rows" in decision.reason


def test_a_gain_that_chance_gives_among_many_figures_is_none() -> None:
    """p is about 0.03: less than the level, but there are eight figures."""
    decision = decided(found(), found(ce=-0.005, spread=2.8))
    (figure,) = [f for f in decision.figures if (f.measure, f.rows) == ("ce", "feedback")]
    assert 0.05 / 8 < figure.p < 0.05
    assert not decision.promote


def test_no_chrf_of_edits_which_are_made_of_the_old_texts() -> None:
    assert "chrf feedback" not in verdicts(decided(found(), found()))


def test_figures_that_are_not_finite_are_worse() -> None:
    assert decided(found(ce=math.nan), found(ce=-1.0)).reason == "worse: cross-entropy (original)"


@pytest.mark.parametrize(("original", "feedback", "missing"), [(3, 9, "original data"), (9, 3, "edited answers")])
def test_too_few_rows_are_a_refusal_that_says_which(original: int, feedback: int, missing: str) -> None:
    records = sample_records(0, 9)
    refusal = too_few(Evidence(records[:original], records[:feedback]), CONFIG)
    assert refusal is not None
    assert not refusal.promote
    assert (
        refusal.reason
        == f"too few rows to decide: 3 held-out {'rows of the ' if 'orig' in missing else ''}{missing}, 4 are needed"
    )
    assert too_few(Evidence(records, records), CONFIG) is None


@pytest.mark.parametrize(
    ("change", "feedback", "reason"),
    [
        ({"likelihood_gain": 0.1}, {}, "worse in no figure, better: likelihood gain (tasks)"),
        ({}, {"ce": -0.3}, "better in no figure of the responder"),
        ({"likelihood_gain": 0.1, "margin_gain": -0.2}, {"ce": -0.3}, "worse: margin gain (tasks)"),
    ],
)
def test_a_responder_must_find_it_better_too(change: dict[str, float], feedback: dict[str, float], reason: str) -> None:
    old, new = (
        {name: (np.full(COUNT, by.get(name, 0.0)), ones(COUNT)) for name in ("likelihood_gain", "margin_gain")}
        for by in ({}, change)
    )
    kinds = {"original": found(), "feedback": found(**feedback), "tasks": (old, new)}
    decision = decide(kinds, dict.fromkeys(kinds, COUNT), CONFIG)
    assert decision.reason == reason
    assert decision.promote == reason.startswith("worse in no figure")


def test_adapters_are_judged_as_they_are_served(optimizer: PromptOptimizer) -> None:
    records = sample_records(0, 12)
    decision = judge(optimizer, optimizer, Evidence(records[:6], records[6:]), CONFIG)
    assert decision.reason == "better in no figure"
    assert decision.counts == {"original": 6, "feedback": 6}
    assert {f"{f.measure} {f.rows}" for f in decision.figures} == {
        *(f"{name} {rows}" for name in ("ce", "preference_accuracy") for rows in ("original", "feedback")),
        *("chrf original", "withheld both", "unchanged both", "repetition both"),
    }
    json.dumps(asdict(decision), allow_nan=False)
    assert table(decision).row_count == len(decision.figures)


def test_weights_that_are_not_finite_are_refused_at_once(optimizer: PromptOptimizer) -> None:
    broken = PromptOptimizer(optimizer.encoder, optimizer.generator, type(optimizer.adapter)(optimizer.adapter.config))
    with torch.no_grad():
        next(broken.adapter.parameters()).fill_(math.nan)
    records = sample_records(0, 12)
    decision = judge(optimizer, broken, Evidence(records[:6], records[6:]), CONFIG)
    assert not decision.promote
    assert "not finite" in decision.reason
