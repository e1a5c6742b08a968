"""``neuro-latent evaluate``: figures whose value is known, and the command."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from neuro_latent_core.form import FORMS, Form
from neuro_latent_core.guard import NOT_SURE
from neuro_latent_trainer.backbones import fingerprint
from neuro_latent_trainer.evaluation import evaluate, latent, measures, paired, report, statistics
from neuro_latent_trainer.evaluation.baselines import Baselines, Budget
from neuro_latent_trainer.evaluation.cli import evaluate as command
from neuro_latent_trainer.evaluation.served import as_served, nothing
from neuro_latent_trainer.evaluation.systems import Conditioned, adapted, instructed, nearest, typical
from neuro_latent_trainer.gate import Gate
from neuro_latent_trainer.model import PromptOptimizer
from neuro_latent_trainer.sample import sample_records
from tests import tiny
from tests.conftest import Pair

pytestmark = pytest.mark.slow

ROWS = 12
SAMPLE = sample_records()[:ROWS]
RAW = [record.raw_prompt for record in SAMPLE]
COMPLEMENTS = [record.target("complement") or "" for record in SAMPLE]
GOLD = [text or "Nothing to add." for text in COMPLEMENTS]
RECORDS = [replace(r, enhanced_prompt=gold, failed_prompts=("no",)) for r, gold in zip(SAMPLE, GOLD, strict=True)]
"""For an adapter that rewrites."""
CONFIG = evaluate.EvaluationConfig(max_length=8, max_target_tokens=20)
MEASURES = list(measures.measure(RAW[:1], GOLD[:1], GOLD[:1], "rewrite"))


@pytest.fixture
def complementing(pair: Pair, tmp_path: Path) -> PromptOptimizer:
    """A random adapter that writes complements."""
    folder = tiny.write_adapter(tmp_path / "complementing", pair.encoder, pair.generator, form="complement")
    return PromptOptimizer.from_pretrained(folder)


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


def test_a_ratio_of_sums() -> None:
    found = statistics.ratio([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)
    assert np.isnan(statistics.ratio([1.0], [0.0]).value)


def test_flipped_signs_tell_chance_from_a_difference() -> None:
    rng = np.random.default_rng(0)
    assert statistics.sign_flips(rng.normal(0.3, 1.0, 400)) < 0.01
    assert statistics.sign_flips(np.r_[np.ones(50), -np.ones(50)]) > 0.5
    assert statistics.sign_flips(np.zeros(10)) == 1.0


# Texts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_what_changes_nothing_is_unchanged_and_nothing_else(form: Form) -> None:
    found = measures.measure(RAW, GOLD, nothing(RAW, form), form)
    assert found["unchanged"]["value"] == 1.0
    assert found["served"]["value"] == found["unneeded"]["value"] == found["rejected"]["value"] == 0.0


def test_the_gold_text_has_a_chrf_of_100() -> None:
    for gold in (GOLD, COMPLEMENTS):
        found = measures.measure(RAW, gold, gold, "complement")
        assert found["chrf"]["value"] == pytest.approx(100)
        assert (found["unchanged"]["value"], found["unneeded"]["value"], found["length_ratio"]) == (0.0, 0.0, 1.0)


def test_a_change_is_right_or_wrong_by_whether_the_gold_has_one() -> None:
    raw = ["Name 3 of 5", "hello", "Say hi", "thanks"]
    rewrites = measures.measure(raw, ["Name three.", "Hello", "Say it.", "thanks"], [*raw[:3], "Thank you."], "rewrite")
    added = measures.measure(raw, ["Briefly.", "", "Loudly.", ""], ["", "", "", "Nicely."], "complement")
    for found in (rewrites, added):
        assert (found["unchanged"]["value"], found["unneeded"]["value"], found["served"]["value"]) == (1.0, 0.5, 0.25)
    assert added["chrf"]["value"] == 25.0  # the two empty ones


def test_loops_are_rejected() -> None:
    found = measures.measure(["a", "b", "c"], ["x"] * 3, ["so " * 20, "Fine.", ""], "complement")
    assert found["rejected"]["value"] == pytest.approx(1 / 3, abs=1e-5)
    assert found["self_bleu"] < 10


def test_rouge_l_repetition_and_self_bleu() -> None:
    assert measures.rouge_l("The cat sat.", "the CAT sat") == 1.0
    assert measures.rouge_l("a b c d", "a x c") == pytest.approx(2 * 2 / 7)
    assert measures.rouge_l("", "") == 1.0
    assert measures.repetition("one two three four") == 0.0
    assert measures.repetition("a b c a b c a b c") == pytest.approx(4 / 7)
    assert measures.self_bleu(["write a poem about rain"] * 3) == pytest.approx(100)
    assert measures.self_bleu(["write a poem about rain", "list seven old rivers now"]) < 10


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
    assert nearest(optimizer, RAW, GOLD)(RAW[3:6]) == GOLD[3:6]


def test_the_typical_text_is_the_one_nearest_to_the_mean_of_all(optimizer: PromptOptimizer) -> None:
    texts = ["List the steps.", "List the steps!", "List the steps?", "Qwertz 99 zzz"]
    assert typical(optimizer, texts) in texts[:3]


def test_an_adapted_t5_writes_and_scores_as_the_whole_model_does(optimizer: PromptOptimizer) -> None:
    system = Conditioned(optimizer.generator, adapted(optimizer), CONFIG)
    assert system.write(RAW) == optimizer.write(RAW, 8)
    losses = system.losses(RAW, GOLD)
    tokens = optimizer.generator.tokenizer(GOLD[0])["input_ids"][:20]
    source = optimizer.generator.tokenize(RAW[:1], 512)
    with torch.no_grad():
        hidden, mask = optimizer.encode(optimizer.embed(RAW[:1]), source["input_ids"], source["attention_mask"])
        logprobs = optimizer.generator.logits(hidden, mask, torch.tensor([tokens]))[0].log_softmax(-1)
    assert losses.tokens[0] == len(tokens)
    assert losses.nats[0] == pytest.approx(-logprobs[range(len(tokens)), tokens].sum().item(), rel=1e-4)


def test_the_instruction_stands_before_the_prompt(optimizer: PromptOptimizer) -> None:
    instruction_text = optimizer.adapter.config.instruction
    _, mask = instructed(optimizer.generator, instruction_text)(["Create a function"])
    _, alone = adapted(optimizer)(["Create a function"])
    slots = optimizer.adapter.config.soft_prompt_tokens
    instruction = optimizer.generator.tokenizer(instruction_text, add_special_tokens=False)
    assert mask.shape[1] - (alone.shape[1] - slots) == pytest.approx(len(instruction["input_ids"]), abs=1)


# The whole ------------------------------------------------------------------------------------------------------------


def test_every_figure_is_there_by_system(optimizer: PromptOptimizer) -> None:
    found = evaluate.evaluate(optimizer, RECORDS, train=RECORDS[:4], preferences=RECORDS, config=CONFIG)
    figures = json.loads(json.dumps(found.figures))
    written = ["raw", "nearest", "instruction", "adapter", "adapter, as served"]
    for name in MEASURES:
        assert list(figures[name]) == written
    for name in ("ce", "preference_accuracy"):
        assert list(figures[name]) == ["raw", "instruction", "adapter"]
    assert list(figures["preference_by_intent"]) == ["raw", "adapter"]
    assert "share_of_full_finetune_gain" not in figures
    assert figures["unchanged"]["raw"]["value"] == 1.0
    assert figures["rejected"]["adapter, as served"]["value"] == 0.0
    assert (figures["rows"], figures["form"]) == (ROWS, "rewrite")
    assert found.enhanced(found.gold) == GOLD
    gain = figures["ce"]["instruction"]["value"] - figures["ce"]["adapter"]["value"]
    assert figures["better_than"]["instruction"]["ce"]["value"] == pytest.approx(gain, abs=1e-3)


def test_complements_are_compared_with_complements_and_more_baselines(complementing: PromptOptimizer) -> None:
    figures = evaluate.evaluate(complementing, SAMPLE, train=SAMPLE[:4], preferences=SAMPLE, config=CONFIG)
    found, texts = figures.figures, figures.texts
    systems = ["raw", "nearest", "constant", "instruction", "adapter", "adapter, shuffled", "adapter, as served"]
    for name in MEASURES:
        assert list(found[name]) == systems
    assert list(found["ce"]) == ["raw", "instruction", "adapter"]
    assert list(found["better_than"]) == ["raw", "nearest", "constant", "instruction", "adapter, shuffled"]
    assert set(found["better_than"]["nearest"]) == {"chrf"}
    assert "preference_accuracy" in found
    assert found["chrf"]["raw"]["value"] == pytest.approx(100 * COMPLEMENTS.count("") / ROWS)
    assert set(texts["constant"]) <= set(COMPLEMENTS[:4])
    assert texts["nearest"][:4] == COMPLEMENTS[:4]
    assert sorted(texts["adapter, shuffled"]) == sorted(texts["adapter"])
    enhanced = figures.enhanced(texts["adapter"])
    assert enhanced == complementing.generate(RAW, CONFIG.max_length)
    assert all(text.startswith(raw) for raw, text in zip(RAW, enhanced, strict=True))


def test_what_the_gate_withholds_leaves_the_raw_prompt(complementing: PromptOptimizer) -> None:
    system = Conditioned(complementing.generator, adapted(complementing), CONFIG)
    texts = ["Briefly.", "", "so " * 20, "In Rust."]
    served, reasons = as_served(complementing, system, RAW[:4], texts)
    assert reasons == ["", "", reasons[2], ""]
    assert reasons[2]
    assert served == ["Briefly.", "", "", "In Rust."]
    gate = Gate(torch.zeros(1, 32), torch.zeros(1), torch.zeros(1, 32))
    gate.threshold.fill_(0.9)
    complementing.adapter.gate = gate  # says 0.5 of everything
    served, reasons = as_served(complementing, system, RAW[:4], texts)
    assert (served, reasons) == ([""] * 4, [NOT_SURE, "", NOT_SURE, NOT_SURE])
    found = evaluate.evaluate(complementing, SAMPLE, config=CONFIG).figures
    assert found["served"]["adapter, as served"]["value"] == 0.0
    assert found["withheld"]["adapter, as served"] == found["served"]["adapter"]
    gate.bias.fill_(9.0)
    assert as_served(complementing, system, RAW[:4], texts)[1].count(NOT_SURE) == 0


def test_soft_prompts_that_ignore_the_prompt_have_no_usage_gap_and_rank_1(adapter: Path) -> None:
    model = PromptOptimizer.from_pretrained(adapter)
    projector: Any = model.adapter.projector
    with torch.no_grad():
        projector.scale.zero_()
    figures = evaluate.evaluate(model, RECORDS, config=CONFIG).figures
    assert figures["usage_gap"]["adapter"]["value"] == pytest.approx(0, abs=1e-6)
    assert figures["effective_rank"]["adapter"] == 1.0


def test_texts_that_are_equally_likely_are_a_tie(optimizer: PromptOptimizer) -> None:
    system = Conditioned(optimizer.generator, adapted(optimizer), CONFIG)
    tied = [replace(record, failed_prompts=(record.enhanced_prompt or "",)) for record in RECORDS]
    assert (evaluate.prefers_success(system, tied, "rewrite") == 0.5).all()
    by_intent = evaluate.preference_by_intent(optimizer, tied)
    assert {name: found.value for name, found in by_intent.items()} == {"raw": 0.5, "adapter": 0.5}


def test_a_preference_without_a_failed_prompt_is_refused_before_the_work_begins(
    optimizer: PromptOptimizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "Conditioned", None)  # which all work needs
    with pytest.raises(ValueError, match="an enhanced and a failed prompt"):
        evaluate.evaluate(optimizer, RECORDS, preferences=[replace(RECORDS[0], failed_prompts=())])


def test_rows_are_chosen_whatever_the_order_of_the_file() -> None:
    few = evaluate.chosen(RECORDS, "rewrite", 5)
    assert {r.line for r in few} == {r.line for r in evaluate.chosen(RECORDS[::-1], "rewrite", 5)}
    assert evaluate.chosen(RECORDS, "rewrite", 500) == RECORDS
    with pytest.raises(ValueError, match="at least 2 rows"):
        evaluate.chosen(RECORDS[:1], "rewrite", 5)
    assert evaluate.chosen(SAMPLE, "complement", 500) == SAMPLE
    with pytest.raises(ValueError, match="which begins with the raw prompt, not 0"):
        evaluate.chosen(RECORDS, "complement", 5)


# Baselines -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def budget(optimizer: PromptOptimizer) -> Budget:
    instruction = optimizer.adapter.config.instruction
    return Budget(40, 4, 16, 20, 5, instruction, "rewrite", prompt_tuning_rate=0.3, finetune_rate=3e-3)


@pytest.fixture(scope="module")
def baselines(optimizer: PromptOptimizer, budget: Budget, tmp_path_factory: pytest.TempPathFactory) -> Baselines:
    return Baselines(tmp_path_factory.mktemp("baselines"), optimizer.generator, RECORDS, budget)


def test_baselines_learn_and_leave_the_frozen_t5_as_it_was(optimizer: PromptOptimizer, baselines: Baselines) -> None:
    before = fingerprint(optimizer.generator.model)
    found = evaluate.evaluate(optimizer, RECORDS, baselines=baselines, config=CONFIG)
    assert fingerprint(optimizer.generator.model) == before
    losses = {system: figure["value"] for system, figure in found.figures["ce"].items()}
    assert losses["full fine-tune"] < losses["instruction"]
    assert losses["prompt tuning"] < losses["raw"]
    share = (losses["instruction"] - losses["adapter"]) / (losses["instruction"] - losses["full fine-tune"])
    assert found.figures["share_of_full_finetune_gain"]["adapter"]["value"] == pytest.approx(share, abs=0.02)
    assert list(found.texts) == [
        "raw",
        "instruction",
        "prompt tuning",
        "adapter",
        "full fine-tune",
        "adapter, as served",
    ]


def test_baselines_are_found_again_and_trained_anew_for_other_budgets(
    optimizer: PromptOptimizer, budget: Budget, tmp_path: Path
) -> None:
    def trained(budget: Budget) -> tuple[torch.Tensor, int]:
        soft = Baselines(tmp_path, optimizer.generator, RECORDS, budget).prompt_tuning()
        return soft, (tmp_path / "prompt_tuning.safetensors").stat().st_mtime_ns

    first, made = trained(budget)
    assert first.shape == (5, optimizer.generator.width)
    again, found = trained(budget)
    assert found == made
    assert torch.equal(first, again)
    other, anew = trained(replace(budget, seed=1))
    assert anew > made
    assert not torch.equal(first, other)


def test_virtual_tokens_start_from_the_instruction(optimizer: PromptOptimizer, budget: Budget, tmp_path: Path) -> None:
    soft = Baselines(tmp_path, optimizer.generator, RECORDS, replace(budget, steps=0)).prompt_tuning()
    ids = optimizer.generator.tokenizer(budget.instruction)["input_ids"][:5]
    assert torch.equal(soft, optimizer.generator.embeddings.weight[ids])


# Two adapters ---------------------------------------------------------------------------------------------------------


def test_an_adapter_is_no_better_than_itself(optimizer: PromptOptimizer) -> None:
    figures = paired.compare(optimizer, optimizer, RECORDS, preferences=RECORDS, config=CONFIG)
    for name in ("ce", "chrf", "preference_accuracy"):
        assert figures[name]["difference"]["value"] == 0.0
        assert (figures[name]["better"], figures[name]["p"]) == ("neither", 1.0)


def test_adapters_of_two_forms_do_not_compare(optimizer: PromptOptimizer, complementing: PromptOptimizer) -> None:
    with pytest.raises(ValueError, match="of the rewrite form, the other of the complement form"):
        paired.compare(optimizer, complementing, RECORDS, config=CONFIG)


def test_complements_of_two_adapters_compare(complementing: PromptOptimizer) -> None:
    figures = paired.compare(complementing, complementing, SAMPLE, preferences=SAMPLE, config=CONFIG)
    assert {"ce", "chrf", "served", "unchanged", "withheld", "preference_accuracy"} <= set(figures)
    assert figures["served"]["better"] == figures["withheld"]["better"] == "neither"


def test_the_better_of_two_is_named(optimizer: PromptOptimizer, baselines: Baselines) -> None:
    better = PromptOptimizer(optimizer.encoder, baselines.full_finetune(), optimizer.adapter)
    figures = paired.compare(optimizer, better, RECORDS, config=CONFIG)
    assert figures["ce"]["better"] == "second"
    assert figures["ce"]["p"] < 0.05


# The report -----------------------------------------------------------------------------------------------------------


def test_the_report_of_complements_shows_whole_prompts(complementing: PromptOptimizer, tmp_path: Path) -> None:
    found = evaluate.evaluate(complementing, SAMPLE, config=CONFIG)
    report.write_report(tmp_path / "report.html", complementing, found, run=None)
    page = (tmp_path / "report.html").read_text()
    assert "Form: complement" in page
    assert "<del>" not in page
    assert f"{RAW[0]}\n\n{COMPLEMENTS[0]}" in page


def test_the_report_is_one_file_that_loads_nothing_and_escapes_texts(
    optimizer: PromptOptimizer, tmp_path: Path
) -> None:
    records = [replace(RECORDS[0], raw_prompt="<script>alert(1)</script> now"), *RECORDS[1:]]
    found = evaluate.evaluate(optimizer, records, config=CONFIG)
    report.write_report(tmp_path / "report.html", optimizer, found, run=None)
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert page.count("<article>") == ROWS


# The command ----------------------------------------------------------------------------------------------------------

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


def test_prompts_that_were_trained_on_are_refused_or_marked(adapter: Path, tmp_path: Path) -> None:
    """Those of the adapter's own run, and of --train; the rows of a run that were held out are the default."""
    rows = [{"raw_prompt": r, "enhanced_prompt": g} for r, g in zip(RAW, GOLD, strict=True)]
    run = tmp_path / "run"
    shutil.copytree(adapter, run / "adapter")
    write(run / "train.jsonl", rows[:3])
    write(run / "val.jsonl", rows[3:])
    data = write(tmp_path / "data.jsonl", rows)
    common = ["--max-length", "6", "--json"]
    refused = "3 of the 12 prompts of data.jsonl were trained on (record 1, 2, 3): figures of them are too good"
    for arguments in (
        ["--adapter", run, "--data", data],
        ["--compare", adapter, run, "--data", data],
        ["--adapter", adapter, "--data", data, "--train", run / "train.jsonl"],
    ):
        done = CliRunner().invoke(app, [*map(str, arguments), *common])
        assert done.exit_code == 1
        assert refused in done.stderr
    done = CliRunner().invoke(app, ["--adapter", str(run), "--data", str(data), *common, "--allow-overlap"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])["overlap"]
    done = CliRunner().invoke(app, ["--adapter", str(run), *common])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout.splitlines()[-1])
    assert (figures["data"], figures["rows"], figures["overlap"]) == ("val.jsonl", 9, False)


def test_the_command_needs_one_adapter_or_two(adapter: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "val.jsonl", [{"raw_prompt": "a", "enhanced_prompt": "b"}])
    for arguments in ([], ["--adapter", str(adapter), "--compare", str(adapter), str(adapter)]):
        done = CliRunner().invoke(app, ["--data", str(data), *arguments])
        assert done.exit_code == 2
        assert "--compare A B" in done.stderr


@pytest.mark.parametrize("option", ["--report", "--train", "--baselines-dir"])
def test_options_that_a_comparison_would_ignore_are_refused(adapter: Path, tmp_path: Path, option: str) -> None:
    data = write(tmp_path / "val.jsonl", [{"raw_prompt": "a", "enhanced_prompt": "b"}])
    arguments = ["--compare", adapter, adapter, "--data", data, option, tmp_path / "x"]
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 2
    assert "--compare writes no report and trains no baselines: leave out" in done.stderr
    assert option in done.stderr
    assert not (tmp_path / "x").exists()


def test_the_command_compares_two(adapter: Path, tmp_path: Path) -> None:
    rows = [{"raw_prompt": r, "enhanced_prompt": g} for r, g in zip(RAW, GOLD, strict=True)]
    arguments = [
        "--compare",
        adapter,
        adapter,
        "--data",
        write(tmp_path / "val.jsonl", rows),
        "--max-length",
        6,
        "--json",
    ]
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])["ce"]["better"] == "neither"
