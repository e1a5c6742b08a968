"""``neuro-latent evaluate``: figures whose value is known, and the command."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from neuro_latent_trainer.data import Record
from neuro_latent_trainer.evaluation import compare, latent, measures, statistics
from neuro_latent_trainer.evaluation.cli import evaluate as command
from neuro_latent_trainer.evaluation.systems import Conditioned, Nearest, Unchanged, adapted, instructed
from neuro_latent_trainer.model import PromptOptimizer
from neuro_latent_trainer.sample import sample_rows

ROWS = 12
RECORDS = [
    Record(row["raw_prompt"], row["enhanced_prompt"], ("no",), "", "", line)
    for line, row in enumerate(sample_rows()[:ROWS], start=1)
]
RAW, GOLD = [r.raw_prompt for r in RECORDS], [r.enhanced_prompt or "" for r in RECORDS]
CONFIG = compare.EvaluationConfig(max_length=8, max_target_tokens=20)

# Statistics -----------------------------------------------------------------------------------------------------------


def test_a_mean_lies_in_its_interval_and_the_draws_repeat() -> None:
    values = np.random.default_rng(0).normal(3.0, 1.0, 400)
    found = statistics.mean(values)
    assert found.value == pytest.approx(values.mean())
    assert found.low < found.value < found.high
    # 95 % of a normal distribution: 1.96 standard errors to each side.
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.15)
    assert found == statistics.mean(values)
    assert found != statistics.mean(values, seed=1)


def test_a_weighted_mean_and_rows_that_do_not_vary() -> None:
    assert statistics.mean([1.0, 2.0], [3, 1]).value == 1.25
    assert statistics.mean([0.5] * 9) == statistics.Interval(0.5, 0.5, 0.5)


@pytest.mark.parametrize(("values", "weights"), [([], None), ([1.0, 2.0], [0, 0])])
def test_a_mean_of_nothing_is_an_error(values: list[float], weights: list[float] | None) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        statistics.mean(values, weights)


# Texts ----------------------------------------------------------------------------------------------------------------


def test_the_unchanged_prompt_is_copied_and_keeps_its_literals() -> None:
    found = measures.measure(RAW, GOLD, Unchanged().write(RAW))
    assert found.copied.value == found.literals_kept.value == 1.0
    assert found.degenerate.value == 0.0


def test_the_gold_text_has_a_chrf_of_100() -> None:
    found = measures.measure(RAW, GOLD, GOLD)
    assert found.chrf.value == pytest.approx(100)
    assert (found.copied.value, found.length_ratio) == (0.0, 1.0)


def test_literals_are_counted_one_by_one_and_rows_whose_gold_is_the_prompt_do_not_count_as_copied() -> None:
    raw = ["Name 3 of 5", "hello", "Say hi"]
    found = measures.measure(raw, ["Name 3 of the 5.", "Hello", "Say hi to me"], ["Name 3", "hello", "Say bye"])
    assert found.literals_kept.value == 0.5
    assert found.copied.value == 0.0


# Latent space ---------------------------------------------------------------------------------------------------------


def test_effective_rank() -> None:
    torch.manual_seed(0)
    direction = torch.randn(1, 4, 8)
    assert latent.effective_rank(direction.expand(10, 4, 8)) == 1.0
    assert latent.effective_rank(torch.randn(10, 1, 1) * direction) == pytest.approx(1.0, abs=1e-3)
    assert latent.effective_rank(torch.randn(40, 4, 8)) > 20
    five = torch.eye(6).repeat(3, 1).reshape(18, 2, 3)
    assert latent.effective_rank(five) == pytest.approx(5.0, abs=1e-6)  # six corners around their mean


def test_retrieval_and_explained_variance() -> None:
    torch.manual_seed(0)
    target = torch.randn(50, 16)
    assert latent.retrieval(target * 3, target).value == 1.0
    assert latent.retrieval(torch.randn(50, 16), target).value < 0.3
    assert latent.explained(target, target) == 1.0
    assert latent.explained(torch.zeros(50, 16), target) == 0.0


# Systems --------------------------------------------------------------------------------------------------------------


def test_the_nearest_prompt_of_a_known_one_is_itself(optimizer: PromptOptimizer) -> None:
    assert Nearest(optimizer, RAW, GOLD).write(RAW[3:6]) == GOLD[3:6]


def test_an_adapted_t5_writes_and_scores_as_the_whole_model_does(optimizer: PromptOptimizer) -> None:
    system = Conditioned("adapter", optimizer, adapted(optimizer), 8, 20)
    assert system.write(RAW) == optimizer.generate(RAW, 8)
    losses = system.losses(RAW, GOLD)
    tokens = optimizer.generator.tokenizer(GOLD[0])["input_ids"][:20]
    source = optimizer.generator.tokenize(RAW[:1], 512)
    with torch.no_grad():
        hidden, mask = optimizer.encode(optimizer.embed(RAW[:1]), source["input_ids"], source["attention_mask"])
        logprobs = optimizer.logits(hidden, mask, torch.tensor([tokens]))[0].log_softmax(-1)
    assert losses.tokens[0] == len(tokens)
    assert losses.nats[0] == pytest.approx(-logprobs[range(len(tokens)), tokens].sum().item(), rel=1e-4)


def test_the_instruction_stands_before_the_prompt(optimizer: PromptOptimizer) -> None:
    _, mask = instructed(optimizer)(["Create a function"])
    _, alone = adapted(optimizer)(["Create a function"])
    slots = optimizer.adapter.config.soft_prompt_tokens
    instruction = optimizer.generator.tokenizer(optimizer.adapter.config.instruction, add_special_tokens=False)
    assert mask.shape[1] - (alone.shape[1] - slots) == pytest.approx(len(instruction["input_ids"]), abs=1)


# The whole ------------------------------------------------------------------------------------------------------------


def test_every_figure_is_there_by_system(optimizer: PromptOptimizer) -> None:
    found = compare.evaluate(optimizer, RECORDS, train=RECORDS[:4], preferences=RECORDS, config=CONFIG)
    figures = json.loads(json.dumps(found.figures))
    written = ["raw", "nearest", "instruction", "adapter", "adapter, guarded"]
    for name in ("chrf", "copied", "literals_kept", "degenerate", "length_ratio"):
        assert list(figures[name]) == written
    for name in ("ce", "preference_accuracy"):
        assert list(figures[name]) == ["instruction", "adapter"]
    assert figures["copied"]["raw"]["value"] == 1.0
    assert figures["literals_kept"]["adapter, guarded"]["value"] == 1.0
    assert figures["rows"] == ROWS == len(found.texts["adapter"])
    gain = figures["ce"]["instruction"]["value"] - figures["ce"]["adapter"]["value"]
    assert figures["ce_gain"]["value"] == pytest.approx(gain, abs=1e-3)


def test_soft_prompts_that_ignore_the_prompt_have_no_usage_gap_and_rank_1(adapter: Path) -> None:
    model = PromptOptimizer.from_pretrained(adapter)
    projector: Any = model.adapter.projector
    with torch.no_grad():
        projector.scale.zero_()
    figures = compare.evaluate(model, RECORDS, config=CONFIG).figures
    assert figures["usage_gap"]["adapter"]["value"] == pytest.approx(0, abs=1e-6)
    assert figures["effective_rank"]["adapter"] == 1.0


def test_texts_that_are_equally_likely_are_a_tie(optimizer: PromptOptimizer) -> None:
    system = Conditioned("adapter", optimizer, adapted(optimizer), 8, 20)
    tied = [replace(record, failed_prompts=(record.enhanced_prompt or "",)) for record in RECORDS]
    assert compare.preference_accuracy(system, tied).value == 0.5


def test_a_preference_without_a_failed_prompt_is_refused_before_the_work_begins(optimizer: PromptOptimizer) -> None:
    began: list[str] = []

    def stage(name: str, rows: int) -> Callable[[int], None]:
        began.append(name)
        return lambda done: None

    with pytest.raises(ValueError, match="an enhanced and a failed prompt"):
        compare.evaluate(optimizer, RECORDS, preferences=[replace(RECORDS[0], failed_prompts=())], stage=stage)
    assert not began


def test_rows_are_chosen_whatever_the_order_of_the_file() -> None:
    few = compare.chosen(RECORDS, 5)
    assert {r.line for r in few} == {r.line for r in compare.chosen(RECORDS[::-1], 5)}
    assert compare.chosen(RECORDS, 500) == RECORDS
    with pytest.raises(ValueError, match="at least 2 rows"):
        compare.chosen(RECORDS[:1], 5)


app = typer.Typer()
app.command()(command)


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_command_prints_tables_and_the_figures_last(adapter: Path, tmp_path: Path) -> None:
    data = write(
        tmp_path / "val.jsonl", [{"raw_prompt": r, "enhanced_prompt": g} for r, g in zip(RAW, GOLD, strict=True)]
    )
    pairs = write(
        tmp_path / "pairs.jsonl",
        [{"raw_prompt": r, "success": g, "failed": "no"} for r, g in zip(RAW, GOLD, strict=True)],
    )
    arguments = ["--adapter", adapter, "--data", data, "--preferences", pairs, "--rows", 6, "--max-length", 6, "--json"]
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout.splitlines()[-1])
    assert (figures["data"], figures["rows"]) == ("val.jsonl", 6)
    assert "effective rank" in done.stderr


@pytest.mark.parametrize(
    ("rows", "problem"),
    [([{"raw_prompt": "a", "enhanced_prompt": "b"}], "at least 2 rows"), ([{"prompt": "a"}], "raw_prompt")],
)
def test_a_file_that_cannot_be_used_is_one_line(
    adapter: Path, tmp_path: Path, rows: list[dict[str, str]], problem: str
) -> None:
    data = write(tmp_path / "val.jsonl", rows)
    done = CliRunner().invoke(app, ["--adapter", str(adapter), "--data", str(data)])
    assert done.exit_code == 1
    assert problem in done.stderr
    assert "Traceback" not in done.stderr
