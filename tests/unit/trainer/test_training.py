"""The training run: what stays frozen, resuming, what it writes, how it fails."""

import io
import json
import math
import random
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from neuro_latent_core.form import join
from neuro_latent_trainer import checkpoint
from neuro_latent_trainer.adapter_folder import AdapterError
from neuro_latent_trainer.backbones import fingerprint
from neuro_latent_trainer.card import model_card
from neuro_latent_trainer.checkpoint import CheckpointError
from neuro_latent_trainer.model import PromptOptimizer
from neuro_latent_trainer.progress import RunLog
from neuro_latent_trainer.training import RIDGE, Run, ridge
from tests.unit.trainer.conftest import Crash, MakeRun, Recorder, run_maker, sample_records

pytestmark = pytest.mark.slow

STEPS = 20  # 5 batches an epoch, 2 epochs a phase


def weights(run: Run) -> dict[str, torch.Tensor]:
    return {**run.model.adapter.state_dict(prefix="adapter."), **run.head.state_dict(prefix="head.")}


def assert_same_weights(one: Run, other: Run) -> None:
    for name, value in weights(one).items():
        assert torch.equal(value, weights(other)[name]), name


@pytest.fixture(scope="module")
def whole(pair: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that was never stopped; nobody may change it."""
    run = run_maker(pair, tmp_path_factory.mktemp("runs"))("whole")
    assert not run.execute().interrupted
    assert sorted(run.observer.losses) == list(range(1, STEPS + 1))
    return run


def test_frozen_parts_are_byte_identical_after_training(make_run: MakeRun) -> None:
    run = make_run()
    frozen = (run.model.encoder_model, run.model.generator_model)
    before, start = [fingerprint(m) for m in frozen], {k: v.clone() for k, v in weights(run).items()}
    run.execute()
    assert [fingerprint(m) for m in frozen] == before
    unchanged = {name for name, value in weights(run).items() if torch.equal(value, start[name])}
    assert unchanged == {"adapter.standardizer.mean", "adapter.standardizer.spread"}


def test_two_runs_with_one_seed_are_identical_and_another_seed_differs(whole: Run, make_run: MakeRun) -> None:
    again = make_run("again")
    again.execute()
    assert again.observer.losses == whole.observer.losses
    assert_same_weights(again, whole)
    other = make_run("other", Recorder(stop_after=1), seed=1)
    other.execute()
    assert other.observer.losses[1] != whole.observer.losses[1]


def test_a_run_stopped_anywhere_and_resumed_is_bit_identical_to_one_that_was_not(whole: Run, make_run: MakeRun) -> None:
    stops = [3, 5, 10, 13, 19, 20]  # within an epoch, at its end, between the phases, at the very end
    losses: dict[int, dict[str, float]] = {}
    for stop in [*stops, None]:
        run = make_run("stopped", Recorder(stop_after=stop))
        if losses:
            run.restore(checkpoint.newest(run.output_dir))
            assert run.position.step == max(losses)
        summary = run.execute()
        assert summary.interrupted == (stop is not None)
        assert summary.steps == (stop or STEPS)
        assert not set(losses) & set(run.observer.losses), "a step was done twice"
        losses |= run.observer.losses
    assert losses == whole.observer.losses
    assert_same_weights(run, whole)
    last = max(whole.observer.validations)
    assert run.validate() == whole.observer.validations[last]


def test_a_run_that_crashed_goes_on_from_its_last_checkpoint(whole: Run, make_run: MakeRun) -> None:
    crashed = make_run("crashed", Recorder(crash_after=8), save_every=3)
    with pytest.raises(Crash):
        crashed.execute()
    run = make_run("crashed", save_every=3)
    run.restore(checkpoint.newest(run.output_dir))
    assert run.position.step == 6
    run.execute()
    assert run.observer.losses == {step: row for step, row in whole.observer.losses.items() if step > 6}
    assert_same_weights(run, whole)


def test_resuming_from_an_epochs_checkpoint_repeats_what_came_after_it(whole: Run, make_run: MakeRun) -> None:
    run = make_run("again")
    run.restore(whole.output_dir / "phase1_epoch_2.pt")
    assert (run.position.phase, run.position.epoch, run.position.step) == (2, 0, 10)
    run.execute()
    assert run.observer.losses == {step: row for step, row in whole.observer.losses.items() if step > 10}
    assert_same_weights(run, whole)


def test_a_run_folder_holds_a_checkpoint_an_epoch_the_final_model_and_the_adapter(whole: Run) -> None:
    epochs = [f"phase{phase}_epoch_{epoch}.pt" for phase in (1, 2) for epoch in (1, 2)]
    assert sorted(p.name for p in whole.output_dir.glob("*.pt*")) == ["neuro_final_model.pt", *epochs]
    for path in whole.output_dir.glob("*.pt"):
        state = torch.load(path, weights_only=True)
        assert set(state["rng"]) == {"cpu"}
        assert state["config"] == json.loads(json.dumps(whole.config.model_dump()))
    loaded = PromptOptimizer.from_pretrained(whole.output_dir)
    for name, value in whole.model.adapter.state_dict().items():
        assert torch.equal(value, loaded.adapter.state_dict()[name])


def test_the_model_card_names_backbones_data_and_figures(whole: Run) -> None:
    card = (whole.output_dir / "adapter" / "README.md").read_text()
    first, last = (whole.observer.validations[step]["loss"] for step in (0, STEPS))
    for part in (
        whole.config.encoder,
        whole.config.generator,
        "sample.jsonl",
        "40 records",
        "| form | complement |",
        "byte for byte",
        f"{first:.4f}",
        f"{last:.4f}",
    ):
        assert part in card


def test_the_model_card_shows_what_the_gate_lets_through(whole: Run) -> None:
    curve = [{"threshold": 0.5, "served": 0.61, "apt": 0.9}, {"threshold": 0.0, "served": 1.0, "apt": 0.7}]
    adapter = whole.model.adapter.config
    card = model_card(whole.config, adapter.replace(form="rewrite"), {**whole.model.trained, "gate": {"curve": curve}})
    assert "| 0.00 | 100% | 70% |\n| 0.50 | 61% | 90% |\n\n## Use" in card
    assert "byte for byte" not in card
    assert "## The gate" not in model_card(whole.config, adapter, whole.model.trained)


def test_validation_loss_falls_on_a_small_set(make_run: MakeRun) -> None:
    # One target and no noise, because a random T5 listens to soft prompts but little.
    sets = {
        name: [
            replace(record, enhanced_prompt=join(record.raw_prompt, "List the steps and give one example."))
            for record in records
        ]
        for name, records in (("train", sample_records(0, 40)), ("validation", sample_records(40, 48)))
    }
    quiet = {"kl_weight": 0.0, "dropout": 0.0, "input_mask": 0.0, "linear_start": False}
    quiet |= {"soft_prompt_tokens": 16, "learning_rate": 1e-2}
    run = make_run(phase1_epochs=10, phase2_epochs=1, **sets, **quiet)
    summary = run.execute()
    assert summary.validation_loss_end < summary.validation_loss_start - 0.01
    assert summary.validation_loss_end == run.observer.validations[summary.steps]["loss"]


def test_a_run_can_start_from_an_adapter_but_not_from_one_of_another_shape(whole: Run, make_run: MakeRun) -> None:
    start = str(whole.output_dir)
    run = make_run("on", Recorder(stop_after=1), start_from=start)
    run.execute()
    assert run.observer.validations[0] == whole.observer.validations[STEPS]
    with pytest.raises(AdapterError, match=r"which differs: soft_prompt_tokens \d+ there, 3 here"):
        make_run("other", start_from=start, soft_prompt_tokens=3)
    with pytest.raises(AdapterError, match="no adapter in"):
        make_run("none", start_from=str(whole.output_dir.parent / "nowhere"))


def test_runs_can_share_their_embeddings(make_run: MakeRun, tmp_path: Path) -> None:
    first = make_run("first", embeddings_dir=tmp_path / "shared")
    second = make_run("second", embeddings_dir=tmp_path / "shared")
    assert not (first.output_dir / "embeddings").exists()
    assert second.cache.folder == first.cache.folder
    texts = [record.raw_prompt for record in first.train_examples.records]
    assert not second.cache.missing(texts)


def test_ridge_regression_finds_a_linear_map() -> None:
    torch.manual_seed(0)
    raw, linear = torch.randn(4000, 5) + 1, torch.randn(5, 5)
    found, bias = ridge(raw, raw @ linear + 2)
    torch.testing.assert_close(found, linear / (1 + RIDGE), rtol=0.05, atol=0.05)
    torch.testing.assert_close((raw @ found + bias).mean(0), (raw @ linear + 2).mean(0))


def test_a_linear_start_already_explains_some_of_the_training_targets(make_run: MakeRun) -> None:
    for linear_start in (True, False):
        run = make_run(str(linear_start), validation=sample_records(0, 40), linear_start=linear_start)
        assert (run.validate()["intent_r2"] > 0.3) == linear_start


def test_the_explained_variance_of_the_intent_is_over_the_mean_predictor(make_run: MakeRun) -> None:
    run = make_run()
    with torch.no_grad():
        for parameter in run.model.adapter.black_box.contract.parameters():
            parameter.zero_()  # predicts the mean of the training targets
    assert run.validate()["intent_r2"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("phase1", "phase2"), [(0, 1), (1, 0)])
def test_one_phase_alone_runs_to_its_end(make_run: MakeRun, phase1: int, phase2: int) -> None:
    run = make_run(phase1_epochs=phase1, phase2_epochs=phase2)
    assert run.execute().steps == 5
    assert ("contrastive" in run.observer.losses[1]) == bool(phase2)
    assert (run.output_dir / f"phase{1 if phase1 else 2}_epoch_1.pt").is_file()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"learning_rate": 2e-3}, r"other settings: learning_rate 0\.001 there, 0\.002 here"),
        ({"phase2_epochs": 5, "seed": 9}, r"other settings: phase2_epochs 2 there, 5 here, seed 0 there, 9 here"),
        ({"train": sample_records(0, 39)}, "made on 40 training records; there are 39 now"),
        ({"train": [*sample_records(0, 39), *sample_records(60, 61)]}, "other training or validation records"),
        ({"train": sample_records(0, 40)[::-1]}, "other training or validation records"),
        ({"validation": sample_records(41, 49)}, "other training or validation records"),
    ],
    ids=["setting", "settings", "fewer", "another", "order", "validation"],
)
def test_resuming_with_other_settings_or_data_is_refused(make_run: MakeRun, change: dict[str, Any], words: str) -> None:
    first = make_run("run", Recorder(stop_after=2))
    first.execute()
    with pytest.raises(CheckpointError, match=words) as caught:
        make_run("run", **change).restore(checkpoint.newest(first.output_dir))
    assert "in_progress.pt" in str(caught.value)


def test_a_checkpoint_of_an_earlier_version_is_resumed_unless_it_used_what_is_gone(make_run: MakeRun) -> None:
    first = make_run("run", Recorder(stop_after=2))
    first.execute()
    path = checkpoint.newest(first.output_dir)
    state = checkpoint.load(path)
    state["config"] |= {"memory_prompts": 0, "kl_form": "moments", "intent_dropout": 0.0}
    checkpoint.save(path, state)
    run = make_run("run")
    run.restore(path)
    assert run.position.step == 2
    state["config"]["kl_form"] = "vocabulary"
    checkpoint.save(path, state)
    with pytest.raises(CheckpointError, match="made with kl_form 'vocabulary', an option that has been removed"):
        run.restore(path)


def test_a_checkpoint_that_is_missing_damaged_or_something_else_is_one_clear_error(
    make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run()
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        checkpoint.newest(run.output_dir)
    (run.output_dir / "in_progress.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match="can be read: train again"), pytest.warns(match=r"in_progress\.pt"):
        checkpoint.newest(run.output_dir)
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*nowhere\.pt"):
        run.restore(tmp_path / "nowhere.pt")
    (tmp_path / "torn.pt").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(CheckpointError, match=r"cannot read the checkpoint .*torn\.pt"):
        run.restore(tmp_path / "torn.pt")
    torch.save({"weights": torch.ones(2)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt is no checkpoint of a training run"):
        run.restore(tmp_path / "other.pt")


@pytest.mark.parametrize("seed", range(12))
def test_random_bytes_in_a_checkpoint_are_noticed(make_run: MakeRun, whole: Run, tmp_path: Path, seed: int) -> None:
    source = random.Random(seed)
    content = bytearray((whole.output_dir / checkpoint.FINAL).read_bytes())
    start = source.randrange(len(content) - 400)
    content[start : start + 400] = source.randbytes(400)
    (tmp_path / "spoilt.pt").write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"cannot read the checkpoint .*spoilt\.pt: .*newest one that can be read"
    ):
        checkpoint.load(tmp_path / "spoilt.pt")


def test_a_loss_that_is_not_finite_stops_the_run_with_a_clear_error(make_run: MakeRun) -> None:
    run = make_run(learning_rate=1e30)
    with pytest.raises(FloatingPointError, match=r"is (nan|inf) at step \d+; .*lower learning rate"):
        run.execute()


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(make_run: MakeRun) -> None:
    run = make_run()
    run.model.adapter.black_box.expand.weight.register_hook(lambda gradient: gradient * math.inf)
    before = {k: v.clone() for k, v in weights(run).items()}
    with pytest.raises(FloatingPointError, match=r"gradient's norm is (nan|inf) at step 0"):
        run.execute()
    assert all(torch.equal(value, before[name]) for name, value in weights(run).items())


def test_records_without_an_enhanced_prompt_are_left_out_and_none_left_is_an_error(make_run: MakeRun) -> None:
    records = sample_records(0, 8)
    without = [replace(r, enhanced_prompt=None, failed_prompts=("x",)) for r in records[:3]]
    assert len(make_run(train=[*without, *records[3:]]).train_examples) == 5
    with pytest.raises(ValueError, match="at least one record with an enhanced prompt"):
        make_run("none", train=without)
    with pytest.raises(ValueError, match="at least one record with an enhanced prompt"):
        make_run("no validation", validation=[])


def test_a_single_record_without_failed_prompts_can_be_trained_on(make_run: MakeRun) -> None:
    run = make_run(train=[replace(sample_records(0, 1)[0], failed_prompts=())], phase1_epochs=1, phase2_epochs=1)
    run.execute()
    assert all(math.isfinite(value) for row in run.observer.losses.values() for value in row.values())


def test_an_epoch_sees_every_record_once_and_only_seed_and_epoch_decide_the_order(make_run: MakeRun) -> None:
    examples = make_run().train_examples
    batches = examples.order(8, (0, 1, 0))
    assert sorted(row for batch in batches for row in batch) == list(range(40))
    assert max(map(len, batches)) == 8
    assert examples.order(8, (0, 1, 0)) == batches
    assert len({str(examples.order(8, (0, phase, epoch))) for phase in (1, 2) for epoch in (0, 1)}) == 4


def test_the_rate_warms_up_and_falls_to_nothing_over_both_phases(make_run: MakeRun) -> None:
    run = make_run(warmup_share=0.25)
    run.execute()
    rates = [run.observer.losses[step + 1]["learning_rate"] for step in range(STEPS)]
    assert rates[:5] == pytest.approx([2e-4, 4e-4, 6e-4, 8e-4, 1e-3])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] < 2e-5


def test_metrics_samples_and_curves_are_written(make_run: MakeRun, tmp_path: Path) -> None:
    with RunLog(tmp_path / "run", Console(file=io.StringIO())) as log:
        make_run("run", log, sample_every=7).execute()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if r["kind"] == "train"] == list(range(1, STEPS + 1))
    assert [r["step"] for r in rows if r["kind"] == "validation"] == [0, 5, 10, 15, 20]
    assert {"generation", "distillation", "kl", "total", "learning_rate"} <= set(rows[1])
    samples = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert [s["step"] for s in samples] == [7, 7, 7, 14, 14, 14]
    assert samples[0]["raw_prompt"] == sample_records(40, 41)[0].raw_prompt
    (events,) = (tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*")
    assert b"validation/loss" in events.read_bytes()


class CrashingLog(RunLog):
    """Records a step, and loses power."""

    crash_after = 0

    def scalars(self, step: int, values: dict[str, float]) -> None:
        super().scalars(step, values)
        if step == self.crash_after:
            raise Crash


def test_what_is_done_again_after_a_crash_is_recorded_once(make_run: MakeRun, tmp_path: Path) -> None:
    # In the first epoch, between two checkpoints, right after an epoch's checkpoint, and before any checkpoint.
    for crash in (2, 8, 14, 16, 0):
        with CrashingLog(tmp_path / "run", Console(file=io.StringIO())) as log:
            log.crash_after = crash
            run = make_run("run", log, sample_every=4, save_every=5)
            if checkpoint.all_in(run.output_dir):
                run.restore(checkpoint.newest(run.output_dir))
            with pytest.raises(Crash) if crash else nullcontext():
                run.execute()
        with (tmp_path / "run" / "metrics.jsonl").open("a") as metrics:
            metrics.write('{"kind": "tr' if crash else "")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if r["kind"] == "train"] == list(range(1, STEPS + 1))
    assert [r["step"] for r in rows if r["kind"] == "validation"] == [0, 5, 10, 15, 20]
    samples = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert [s["step"] for s in samples] == [step for step in range(4, STEPS + 1, 4) for _ in range(3)]
