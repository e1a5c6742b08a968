"""``neuro-latent train``: exit codes, messages, stopping and going on."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from click.testing import Result
from typer.testing import CliRunner

from neuro_latent_trainer import adapter_folder, overlap
from neuro_latent_trainer.cli import train
from neuro_latent_trainer.data import key, read_records, split_records
from neuro_latent_trainer.sample import encode_rows, sample_rows
from neuro_latent_trainer.settings import LossWeights, TrainConfig
from neuro_latent_trainer.sources import Sources, read_sources
from tests.unit.trainer.conftest import SMALL

pytestmark = pytest.mark.slow

app = typer.Typer()
app.command()(train)

FAST = {"--phase1-epochs": 1, "--phase2-epochs": 1, "--batch-size": 8, "--soft-prompt-tokens": 4}


def run(options: dict[str, Any], *flags: str) -> Result:
    arguments = [str(part) for option in options.items() for part in option]
    return CliRunner().invoke(app, [*arguments, *flags], env={"COLUMNS": "400"})


@pytest.fixture
def options(pair: Any, tmp_path: Path) -> dict[str, Any]:
    """Options of a run of a second on 48 records of the sample."""
    data = tmp_path / "data.jsonl"
    data.write_bytes(encode_rows(sample_rows()[:48], ".jsonl"))
    names = {"--encoder": pair.encoder, "--generator": pair.generator}
    return {"--data-path": data, "--output-dir": tmp_path / "run", "--validation-share": 0.2, **names, **FAST}


def error_line(done: Result) -> str:
    assert "Traceback" not in done.output
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


def test_create_sample_writes_a_set_that_can_be_trained_on(tmp_path: Path) -> None:
    done = run({"--data-path": tmp_path / "sample.jsonl"}, "--create-sample", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {"data_path": str(tmp_path / "sample.jsonl"), "records": len(sample_rows())}
    assert f"neuro-latent train --data-path {tmp_path / 'sample.jsonl'}" in done.stderr
    assert len((tmp_path / "sample.jsonl").read_text().splitlines()) >= 300


def test_create_sample_at_an_impossible_place_is_exit_code_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "file" in error_line(run({"--data-path": tmp_path / "file" / "sample.jsonl"}, "--create-sample"))


def test_a_run_ends_with_one_json_line_and_says_how_to_serve_it(options: dict[str, Any]) -> None:
    done = run(options, "--json")
    assert done.exit_code == 0, done.output
    (line,) = done.stdout.splitlines()
    summary = json.loads(line)
    assert summary["steps"] == 10
    assert summary["output_dir"] == str(options["--output-dir"])
    assert not summary["interrupted"]
    assert Path(summary["adapter"], "adapter_model.safetensors").is_file()
    assert f"neuro-latent serve --run {options['--output-dir']}" in done.stderr
    assert "training records" in done.stderr
    folder = options["--output-dir"]
    assert read_sources(Path(summary["adapter"])) == Sources(str(folder / "train.jsonl"), str(folder / "val.jsonl"))
    # What is given away does not name a place on this machine.
    assert str(options["--data-path"]) not in Path(summary["adapter"], "adapter_config.json").read_text()


def test_settings_of_other_versions_are_read_as_far_as_they_are_known() -> None:
    config = TrainConfig(batch_size=5, phase1=LossWeights(distillation=0.7))
    values = {**json.loads(json.dumps(config.model_dump())), "of_the_future": 1}
    del values["input_mask"]
    assert TrainConfig.from_dict(values) == config


def test_files_of_settings(tmp_path: Path) -> None:
    """A truth is no number, every character comes back, and settings of one command count together."""
    file = tmp_path / "settings.toml"
    file.write_text("seed = true\n")
    with pytest.raises(ValueError, match="seed must be a whole number, not True"):
        TrainConfig.read(file)
    odd = TrainConfig(encoder='a\x7f"\u2028é')
    file.write_text(odd.to_toml())
    assert TrainConfig.read(file) == odd
    file.write_text("phase2_epochs = 0\n")
    done = run(
        {"--config": file, "--data-path": tmp_path / "none.jsonl"},
        *("--set", "phase1_epochs=0", "--set", "phase2_epochs=3"),
    )
    assert "none.jsonl" in done.stderr  # the settings were right


def test_a_run_keeps_its_settings_for_the_next_one(options: dict[str, Any], tmp_path: Path) -> None:
    assert run(options, "--set", "phase2.distillation=0.3", "--set", "seed=5", "--seed", "6").exit_code == 0
    kept = TrainConfig.read(tmp_path / "run" / "config.toml")
    assert (kept.form, kept.seed, kept.validation_share) == ("complement", 6, 0.2)
    assert kept.phase2 == LossWeights(distillation=0.3, contrastive=0.1)
    again = {"--data-path": options["--data-path"], "--output-dir": tmp_path / "again"}
    done = run({**again, "--config": tmp_path / "run" / "config.toml", "--seed": 0})
    assert done.exit_code == 0, done.output
    assert TrainConfig.read(tmp_path / "again" / "config.toml") == kept.replace(seed=0)


def test_the_settings_that_are_shown_are_a_file_of_the_defaults(tmp_path: Path) -> None:
    done = run({}, "--show-config")
    assert done.exit_code == 0
    assert "# Epochs of distillation (at least 0).\nphase1_epochs = 3\n" in done.stdout
    (tmp_path / "train.toml").write_text(done.stdout)
    assert TrainConfig.read(tmp_path / "train.toml") == TrainConfig()


def test_a_folder_that_holds_a_run_is_refused_and_left_as_it_is(options: dict[str, Any]) -> None:
    assert run(options).exit_code == 0
    final = options["--output-dir"] / "neuro_final_model.pt"
    before = final.read_bytes()
    done = run(options)
    assert done.exit_code == 1
    assert "already holds a run" in error_line(done)
    assert "--resume last" in error_line(done)
    assert final.read_bytes() == before


def test_resuming_the_last_of_a_finished_run_changes_nothing(options: dict[str, Any]) -> None:
    assert run(options).exit_code == 0
    before = (options["--output-dir"] / "adapter" / "adapter_model.safetensors").read_bytes()
    done = run({**options, "--resume": "last"}, "--json")
    assert done.exit_code == 0, done.output
    assert "resumed from" in done.stderr
    assert json.loads(done.stdout)["steps"] == 10
    assert (options["--output-dir"] / "adapter" / "adapter_model.safetensors").read_bytes() == before


@pytest.mark.parametrize("damage", ["cut", "emptied", "overwritten"])
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_taken(options: dict[str, Any], damage: str) -> None:
    assert run(options).exit_code == 0
    weights, metrics = (
        options["--output-dir"] / name for name in ("adapter/adapter_model.safetensors", "metrics.jsonl")
    )
    before = weights.read_bytes(), metrics.read_text()
    for name in ("phase2_epoch_1.pt", "neuro_final_model.pt"):
        file = options["--output-dir"] / name
        content = file.read_bytes()
        overwritten = content[:9000] + os.urandom(400) + content[9400:]
        file.write_bytes({"cut": content[:-200], "emptied": b"", "overwritten": overwritten}[damage])
    done = run({**options, "--resume": "last"})
    assert done.exit_code == 0, done.output
    for words in (
        r"checkpoint \S*phase2_epoch_1.pt: ",
        r"checkpoint \S*neuro_final_model.pt: ",
        "phase1_epoch_1.pt at step 5",
    ):
        assert re.search(words, done.stderr), done.stderr
    assert (weights.read_bytes(), metrics.read_text()) == before


def test_a_full_disk_is_one_line_and_leaves_no_half_file(options: dict[str, Any]) -> None:
    other = {**options, "--output-dir": options["--output-dir"].with_name("other")}
    assert run(other).exit_code == 0
    limit = (other["--output-dir"] / "phase1_epoch_1.pt").stat().st_size - 1
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))  # a checkpoint is larger, the other files are not
    try:
        done = run(options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert done.exit_code == 1
    assert "phase1_epoch_1.pt" in error_line(done)
    assert "free some space" in error_line(done)
    assert max(file.stat().st_size for file in options["--output-dir"].rglob("*") if file.is_file()) <= limit
    assert run(options).exit_code == 0
    rows = [json.loads(line) for line in (options["--output-dir"] / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, 11))


def test_resuming_what_is_not_there_fails_before_any_work(options: dict[str, Any]) -> None:
    done = run({**options, "--resume": "last"})
    assert done.exit_code == 1
    assert "no checkpoint in" in error_line(done)
    assert not options["--output-dir"].exists()
    assert "no checkpoint at" in error_line(run({**options, "--resume": "elsewhere.pt"}))


def test_resuming_with_other_settings_names_them(options: dict[str, Any]) -> None:
    assert run(options).exit_code == 0
    done = run({**options, "--resume": "last", "--batch-size": 4, "--seed": 7})
    assert done.exit_code == 1
    assert "batch_size 8 there, 4 here, seed 0 there, 7 here" in error_line(done)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--phase1-epochs", -1, "phase1_epochs must be at least 0, not -1"),
        ("--batch-size", 0, "batch_size must be at least 1, not 0"),
        ("--learning-rate", 0, "learning_rate must be above 0"),
        ("--learning-rate", "nan", "learning_rate must be above 0"),
        ("--learning-rate", "inf", "learning_rate must be above 0"),
        ("--kl-weight", -1, "kl_weight must be at least 0"),
        ("--kl-weight", "nan", "kl_weight must be at least 0"),
        ("--projector", "deep", "projector must be one of residual, dense, not 'deep'"),
        ("--pooling", "max", "pooling must be one of mean, cls, not 'max'"),
        ("--input-mask", 1, "input_mask must be at least 0 and below 1, not 1"),
        ("--validation-share", 0, "validation_share must be above 0 and below 1, not 0"),
        ("--seed", -3, "seed must be at least 0, not -3"),
        ("--device", "tpu", "--device must be auto, cpu, cuda or cuda:N, not 'tpu'"),
        ("--device", "cuda:99", "--device is 'cuda:99', but PyTorch finds"),
        ("--columns", "raw", "columns"),
        ("--set", "kl_weight=-1", "kl_weight must be at least 0, not '-1'"),
        ("--set", "phase1.kl=many", "phase1.kl must be a number, not 'many'"),
        ("--set", "lerning_rate=1", "no setting is called 'lerning_rate'; there are: learning_rate, "),
        ("--set", "seed", "--set takes NAME=VALUE, not 'seed'"),
        ("--config", "nowhere.toml", "nowhere.toml"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(options: dict[str, Any], option: str, value: Any, words: str) -> None:
    done = run({**options, option: value})
    assert done.exit_code in (1, 2)
    assert words in error_line(done)
    assert not list(options["--output-dir"].rglob("*.pt"))


def test_no_epochs_at_all_is_wrong_usage(options: dict[str, Any]) -> None:
    done = run({**options, "--phase1-epochs": 0, "--phase2-epochs": 0})
    assert done.exit_code == 2
    assert "nothing to train" in error_line(done)


def test_a_missing_option_and_an_unknown_one_are_wrong_usage(options: dict[str, Any]) -> None:
    assert run({}).exit_code == 2
    assert run({**options, "--lerning-rate": 1}).exit_code == 2


def no_data(options: dict[str, Any]) -> str:
    options["--data-path"] = "nowhere.jsonl"
    return "nowhere.jsonl"


def unknown_column(options: dict[str, Any]) -> str:
    options["--columns"] = "raw=question,enhanced=enhanced_prompt"
    return "question"


def no_backbone(options: dict[str, Any]) -> str:
    options["--encoder"] = "./nowhere"
    return "no such folder: './nowhere'"


def swapped(options: dict[str, Any]) -> str:
    options["--generator"] = options["--encoder"]
    return "cannot load the generator from the folder"


def output_is_a_file(options: dict[str, Any]) -> str:
    options["--output-dir"].write_text("precious")
    return str(options["--output-dir"])


@pytest.mark.parametrize(
    ("mistake", "code"),
    [(no_data, 1), (unknown_column, 2), (no_backbone, 1), (swapped, 1), (output_is_a_file, 1)],
)
def test_a_failure_is_one_line_with_an_exit_code(
    options: dict[str, Any], mistake: Callable[..., str], code: int
) -> None:
    words = mistake(options)
    done = run(options)
    assert done.exit_code == code
    assert words in error_line(done)


def test_columns_are_mapped(options: dict[str, Any], tmp_path: Path) -> None:
    rows = [{"q": row["raw_prompt"], "a": f"{row['complement']} Be brief.", "k": "x"} for row in sample_rows()[:24]]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = run({**options, "--columns": "raw=q,complement=a,kind=k"}, "--json")  # and no failed prompts at all
    assert done.exit_code == 0, done.output
    assert list(adapter_folder.read(tmp_path / "run").sentences) == ["Be brief."]


def test_the_form_is_that_of_the_data_unless_it_is_given(options: dict[str, Any], tmp_path: Path) -> None:
    done = run(options, "--json")
    assert "form: complement (the data has a column of complements)" in done.stderr
    assert json.loads(done.stdout)["form"] == "complement"
    assert adapter_folder.read(tmp_path / "run").config.form == "complement"
    done = run({**options, "--resume": "last"})
    assert done.exit_code == 0, done.output
    done = run({**options, "--resume": "last", "--form": "rewrite"})
    assert "other settings: form 'complement' there, 'rewrite' here" in error_line(done)
    done = run({**options, "--output-dir": tmp_path / "other", "--form": "rewrite"})
    assert "form: rewrite (as --form says)" in done.stderr
    assert adapter_folder.read(tmp_path / "other").config.form == "rewrite"


def test_a_run_that_starts_from_an_adapter_keeps_its_form(options: dict[str, Any], tmp_path: Path) -> None:
    assert run({**options, "--form": "rewrite"}).exit_code == 0
    start = {**options, "--output-dir": tmp_path / "next", "--start-from": tmp_path / "run"}
    done = run(start)
    assert done.exit_code == 0, done.output
    assert "form: rewrite (as " in done.stderr
    done = run({**start, "--output-dir": tmp_path / "third", "--form": "complement"})
    assert "form 'rewrite' there, 'complement' here" in error_line(done)


def test_rewrites_are_not_used_for_complements_and_are_counted(options: dict[str, Any]) -> None:
    data = options["--data-path"]
    data.write_text(data.read_text() + '{"raw_prompt": "sort", "enhanced_prompt": "Sort a list."}\n')
    done = run(options)
    assert done.exit_code == 0, done.output
    assert "not used: 1 change the raw prompt, which a complement does not" in done.stderr


def test_a_run_shows_what_was_written_before_and_after_it(options: dict[str, Any]) -> None:
    done = run(options, "--sample-every", 0)
    assert done.exit_code == 0, done.output
    for name in ("held-out prompt: ", "written before: ", "written now: "):
        assert sum(line.startswith(name) for line in done.stderr.splitlines()) == 3


def test_what_is_trained_on_and_what_is_held_out_is_kept(options: dict[str, Any]) -> None:
    data, folder = options["--data-path"], options["--output-dir"]
    data.write_text(2 * data.read_text())
    done = run(options)
    assert done.exit_code == 0, done.output
    trained, held_out = (list(read_records(folder / name).records) for name in ("train.jsonl", "val.jsonl"))
    known, kept = split_records(read_records(data).records, 0.2, 0)
    for ours, theirs in ((trained, known), (held_out, kept)):
        assert [replace(record, line=0) for record in ours] == [replace(record, line=0) for record in theirs]
    assert "training pairs are there more than once" in done.stderr
    assert overlap.trained_on(folder) == {key(record.raw_prompt) for record in known}
    # What is given away holds none of them.
    assert not list((folder / "adapter").glob("*.jsonl"))


def test_few_held_out_records_and_prompts_on_both_sides_are_told(options: dict[str, Any], tmp_path: Path) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("".join(options["--data-path"].read_text().splitlines(keepends=True)[:3]))
    done = run(options, "--val-path", few)
    assert done.exit_code == 0, done.output
    assert "fewer than 20 held-out records tell little" in done.stderr
    assert "3 of 3 held-out prompts are trained on too" in done.stderr


def test_a_file_of_which_much_is_lost_stops_the_run(options: dict[str, Any]) -> None:
    data = options["--data-path"]
    data.write_text("not json\n" * 10 + data.read_text())
    done = run(options)
    assert (done.exit_code, "rows are bad" in error_line(done)) == (1, True)
    assert "data.jsonl:10: not valid JSON" in done.stderr
    assert not (options["--output-dir"] / "adapter").exists()


def test_bad_rows_are_reported_with_their_lines_and_the_rest_is_trained_on(options: dict[str, Any]) -> None:
    data = options["--data-path"]
    data.write_text('{"raw_prompt": ""}\nnot json\n' + data.read_text())
    done = run(options)
    assert done.exit_code == 0, done.output
    for place in ("data.jsonl:1", "data.jsonl:2"):
        assert place in done.stderr
    strict = run({**options, "--output-dir": data.parent / "strict"}, "--strict")
    assert strict.exit_code == 1
    assert "data.jsonl:1" in strict.stderr


def test_records_that_are_not_used_are_counted(options: dict[str, Any]) -> None:
    data = options["--data-path"]
    data.write_text('{"raw_prompt": "Sort a list", "failed_prompts": ["Sort"]}\n' * 2 + data.read_text())
    done = run(options)
    assert done.exit_code == 0, done.output
    assert "not used: 2 have no enhanced prompt" in done.stderr


def test_validation_data_of_its_own(options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "val.jsonl").write_bytes(encode_rows(sample_rows()[100:106], ".jsonl"))
    done = run({**options, "--val-path": tmp_path / "val.jsonl"})
    assert done.exit_code == 0, done.output
    assert "48 training records, 6 held out" in done.stderr


def wait_for_steps(process: subprocess.Popen[str], metrics: Path, steps: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if metrics.is_file() and metrics.read_text().count('"kind": "train"') >= steps:
            return
        time.sleep(0.01)
    process.kill()
    pytest.fail(f"no step within two minutes: {process.communicate()[1]}")


def test_ctrl_c_leaves_a_checkpoint_and_the_run_goes_on_from_it(options: dict[str, Any], tmp_path: Path) -> None:
    options |= {"--phase1-epochs": 8, "--phase2-epochs": 8}
    command = [sys.executable, "-c", "import typer; from neuro_latent_trainer.cli import train; typer.run(train)"]
    command += [str(part) for option in options.items() for part in option]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    wait_for_steps(process, tmp_path / "run" / "metrics.jsonl", 3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "--resume last" in errors
    stopped = max(torch.load(p, weights_only=True)["position"]["step"] for p in (tmp_path / "run").glob("*.pt"))
    assert 3 <= stopped < 80

    done = run({**options, "--resume": "last"}, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["steps"] == 80
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, 81))


def test_the_command_shows_the_defaults_of_the_configuration() -> None:
    done = run({}, "--help")
    assert done.exit_code == 0
    for name in SMALL:
        option = f"--{name.replace('_', '-')}"
        if option in done.stdout:
            assert f"[default: {getattr(TrainConfig(), name)}]" in done.stdout, name
