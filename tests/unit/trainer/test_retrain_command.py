"""``neuro-latent retrain`` on the tiny pair: from feedback to a decision, exit codes, going on, promotion."""

import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from click.testing import Result
from typer.testing import CliRunner

from neuro_latent_core.form import join
from neuro_latent_serving.feedback import FeedbackEntry, FeedbackStore
from neuro_latent_trainer import adapter_folder
from neuro_latent_trainer.cli import train
from neuro_latent_trainer.model import PromptOptimizer
from neuro_latent_trainer.retraining import commands
from neuro_latent_trainer.retraining import retrain as retraining
from neuro_latent_trainer.retraining.cli import REFUSED, retrain
from neuro_latent_trainer.retraining.decision import Decision
from neuro_latent_trainer.sample import encode_rows, sample_rows
from neuro_latent_trainer.sources import read_sources

pytestmark = pytest.mark.slow

STYLE = "Act as an expert. "
SETTINGS = "held_out_share = 0.4\nleast_rows = 4\nmax_length = 6\nphase1_epochs = 1\n"

app = typer.Typer()
app.command("train")(train)
app.command("retrain")(retrain)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "300"})


def feedback_rows() -> list[dict[str, Any]]:
    """Edits of the answers to 24 prompts, all towards one style."""
    return [
        {
            "request_id": f"r{number}",
            "raw_prompt": row["raw_prompt"],
            "enhanced_prompt": join(row["raw_prompt"], row["failed_prompts"][0]),
            "rating": -1,
            "edited_prompt": join(row["raw_prompt"], STYLE + row["complement"]),
        }
        for number, row in enumerate(sample_rows()[48:72])
    ]


@pytest.fixture(scope="module")
def base(pair: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a second on 48 records, a fifth of them held out."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "data.jsonl").write_bytes(encode_rows(sample_rows()[:48], ".jsonl"))
    done = invoke(
        *("train", "--data-path", folder / "data.jsonl", "--output-dir", folder / "run", "--validation-share", 0.2),
        *("--encoder", pair.encoder, "--generator", pair.generator, "--phase1-epochs", 1, "--phase2-epochs", 1),
        *("--batch-size", 8, "--soft-prompt-tokens", 4),
    )
    assert done.exit_code == 0, done.output
    return folder / "run"


@pytest.fixture
def options(base: Path, tmp_path: Path) -> list[object]:
    """Of a retraining of two seconds."""
    (tmp_path / "feedback.jsonl").write_text("".join(json.dumps(row) + "\n" for row in feedback_rows()))
    (tmp_path / "retrain.toml").write_text(SETTINGS)
    return [
        *("retrain", "--base", base, "--feedback", tmp_path / "feedback.jsonl", "--config", tmp_path / "retrain.toml"),
        *("--output-dir", tmp_path / "new", "--device", "cpu", "--json"),
    ]


@pytest.fixture
def better(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every adapter is judged better: a T5 with random weights learns too little for a verdict of its own."""
    decision = Decision(True, "better", {"original": 10, "feedback": 10})
    monkeypatch.setattr(retraining, "judge", lambda *_: decision)


def summary(done: Result) -> dict[str, Any]:
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def error_line(done: Result) -> str:
    assert "Traceback" not in done.output
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


# The loop -------------------------------------------------------------------------------------------------------


def test_feedback_becomes_an_adapter_that_is_judged(options: list[object], base: Path, tmp_path: Path) -> None:
    done = invoke(*options)
    found = summary(done)
    assert done.exit_code == (0 if found["promote"] else REFUSED)
    assert found["promoted"] is None
    assert found["counts"] == {"original": 10, "feedback": 10}
    assert {"ce", "preference_accuracy", "withheld"} <= {figure["measure"] for figure in found["figures"]}
    assert "24 rows of feedback: 24 edited answers, 0 liked ones, 24 failed ones" in done.stderr
    new = tmp_path / "new"
    kept = json.loads((new / "decision.json").read_text())
    assert {name: found[name] for name in kept} == kept
    saved = adapter_folder.read(new)
    assert saved.sentences == adapter_folder.read(base).sentences  # none that users wrote
    assert saved.training["config"]["start_from"] == str(base / "adapter")
    assert read_sources(new) == read_sources(base)


def test_no_prompt_is_printed_or_left_in_the_folder(options: list[object], tmp_path: Path) -> None:
    done = invoke(*options)
    written = b"".join(path.read_bytes() for path in (tmp_path / "new").rglob("*") if path.is_file())
    for row in feedback_rows():
        for text in (row["raw_prompt"], row["edited_prompt"], row["enhanced_prompt"]):
            assert text not in done.output
            assert text.encode() not in written


@pytest.mark.usefixtures("better")
def test_a_second_retraining_starts_from_the_first_and_its_data(options: list[object], tmp_path: Path) -> None:
    assert invoke(*options).exit_code == 0
    again = [tmp_path / "new" if part == options[2] else part for part in options]
    done = invoke(*again, "--output-dir", tmp_path / "third")
    assert done.exit_code == 0, done.output
    assert "10 rows of the original data" in done.stderr
    config = adapter_folder.read(tmp_path / "third").training["config"]
    assert config["start_from"] == str(tmp_path / "new" / "adapter")


def test_it_learns_from_answers_of_the_base_and_of_what_that_was_retrained_from(
    options: list[object], base: Path, tmp_path: Path
) -> None:
    def served_as(adapter: Path) -> str:
        weights = (adapter / "adapter_model.safetensors").read_bytes()
        return f"pair-{hashlib.sha256(weights).hexdigest()[:12]}-int8"

    first, second, other = (tmp_path / name / "adapter" for name in ("first", "second", "other"))
    for adapter in (first, second, other):
        shutil.copytree(base / "adapter", adapter)
        with (adapter / "adapter_model.safetensors").open("ab") as weights:
            weights.write(str(adapter).encode())
    (second.parent / "retrain.json").write_text(json.dumps({"base": str(first)}))
    assert all(
        any(part in served_as(adapter) for part in retraining.lineage(second)) is known
        for adapter, known in ((first, True), (second, True), (other, False), (base / "adapter", False))
    )
    rows = feedback_rows()
    for number, row in enumerate(rows):
        row["model_version"] = ("", served_as(base / "adapter"), served_as(other))[number % 3]
    (tmp_path / "feedback.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = invoke(*options)
    assert "24 rows of feedback: 16 edited answers" in done.stderr
    assert "left out: 8 on answers of other adapters" in done.stderr


def test_feedback_comes_from_a_database_that_only_its_owner_can_read_here(
    options: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'feedback.sqlite3'}"
    store = FeedbackStore(url)
    for row in feedback_rows():
        store.add(FeedbackEntry(**row))
    store.close()
    target = tmp_path / "exported.jsonl"
    commands.export_feedback(url, target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert len(target.read_text().splitlines()) == 24
    monkeypatch.setenv(commands.FEEDBACK_VARIABLE, url)
    without = [*options[:3], *options[5:]]
    assert "24 edited answers" in invoke(*without).stderr


def test_a_bad_adapter_is_refused_and_nothing_is_promoted(
    options: list[object], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = PromptOptimizer.from_pretrained(base)
    with torch.no_grad():
        for parameter in model.adapter.parameters():
            parameter.fill_(torch.inf)
    model.save_pretrained(tmp_path / "bad")
    calls = fake_command(monkeypatch, tmp_path, base)
    done = invoke(*options, "--candidate", tmp_path / "bad", "--promote", tmp_path / "repository")
    assert done.exit_code == REFUSED
    found = summary(done)
    assert found["reason"] == "the new adapter has weights that are not finite"
    assert found["promoted"] is None
    assert [call[:2] for call in calls()] == [["adapters", "list"]]


def test_an_adapter_for_other_frozen_models_is_no_candidate(
    options: list[object], gated_pair: Any, tmp_path: Path
) -> None:
    from tests import tiny

    other = tiny.write_adapter(tmp_path / "other", gated_pair.encoder, gated_pair.generator)
    config = json.loads((other / "adapter_config.json").read_text())
    config["generator"]["sha256"] = "0" * 64
    (other / "adapter_config.json").write_text(json.dumps(config))
    done = invoke(*options, "--candidate", other)
    assert done.exit_code == 1
    assert "another generator than the base's" in error_line(done)


# Refusals and errors ---------------------------------------------------------------------------------------------


def test_too_little_feedback_is_refused_before_anything_is_trained(options: list[object], tmp_path: Path) -> None:
    (tmp_path / "feedback.jsonl").write_text(json.dumps(feedback_rows()[0]) + "\n")
    done = invoke(*options)
    assert done.exit_code == REFUSED
    assert "too few rows to decide" in summary(done)["reason"]
    assert not (tmp_path / "new" / "adapter").exists()
    assert not (tmp_path / "new" / "feedback.jsonl").exists()


@pytest.mark.parametrize(
    ("change", "code", "problem"),
    [
        ({"--base": "none"}, 1, "no adapter in"),
        ({"--feedback": "none.jsonl"}, 1, "no such file, and no database URL"),
        ({"--feedback": "mysterious://x"}, 1, "`neuro-latent feedback export` failed with exit code 2"),
        ({"--config": "none.toml"}, 2, "none.toml"),
        ({"--val-path": "val.jsonl"}, 2, "describe --data-path"),
        ({"--data-path": "gone.jsonl"}, 1, "gone.jsonl does not exist"),
    ],
)
def test_a_wrong_option_is_one_line(options: list[object], change: dict[str, str], code: int, problem: str) -> None:
    done = invoke(*options, *(part for option in change.items() for part in option))
    assert done.exit_code == code, done.output
    assert problem in error_line(done)


@pytest.mark.usefixtures("better")
def test_a_start_that_failed_for_want_of_feedback_can_be_repeated(options: list[object]) -> None:
    assert invoke(*options, "--feedback", "none.jsonl").exit_code == 1
    assert invoke(*options).exit_code == 0


@pytest.mark.usefixtures("better")
def test_a_base_that_does_not_say_its_data_needs_data_path(options: list[object], base: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "moved"
    adapter.mkdir()
    for file in (base / "adapter").iterdir():
        (adapter / file.name).write_bytes(file.read_bytes())
    moved = [adapter if part == base else part for part in options]
    done = invoke(*moved)
    assert done.exit_code == 2
    assert "--data-path" in error_line(done)
    assert invoke(*moved, "--data-path", base.parent / "data.jsonl").exit_code == 0


def test_a_database_without_serving_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(commands, "SERVING", "neuro_latent_no_serving")
    with pytest.raises(commands.CommandError, match="pip install neuro-latent-serving"):
        commands.export_feedback(None, tmp_path / "feedback.jsonl")


# A responder -----------------------------------------------------------------------------------------------------


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """Prompts that nothing was trained on, with answers."""
    rows = [{"prompt": row["raw_prompt"], "good": "Yes.", "bad": "No."} for row in sample_rows()[100:106]]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "tasks.jsonl"


def test_a_responder_judges_a_candidate_alone(base: Path, tasks: Path, responder_folder: Path, tmp_path: Path) -> None:
    """Of an adapter whose data nobody knows, without feedback."""
    adapter = tmp_path / "moved"
    shutil.copytree(base / "adapter", adapter)
    done = invoke(
        *("retrain", "--base", adapter, "--candidate", base, "--tasks", tasks, "--responder", responder_folder),
        *("--output-dir", tmp_path / "judged", "--set", "least_rows=4", "--set", "max_length=6", "--json"),
        *("--responder-cache", tmp_path / "responses.sqlite"),
    )
    found = summary(done)
    assert done.exit_code == REFUSED
    assert found["counts"] == {"original": 0, "feedback": 0, "tasks": 6}
    assert found["reason"] == "better in no figure"
    assert [figure["measure"] for figure in found["figures"]] == ["likelihood_gain", "margin_gain", "good_above_bad"]


def test_a_responder_judges_beside_the_other_rows(options: list[object], tasks: Path, responder_folder: Path) -> None:
    cache = ("--responder-cache", tasks.with_suffix(".sqlite"))
    done = invoke(*options, "--tasks", tasks, "--responder", responder_folder, *cache)
    found = summary(done)
    assert found["counts"] == {"original": 10, "feedback": 10, "tasks": 6}
    assert {figure["rows"] for figure in found["figures"]} == {"original", "feedback", "both", "tasks"}


def test_what_was_trained_on_judges_nothing(
    options: list[object], base: Path, tasks: Path, responder_folder: Path, tmp_path: Path
) -> None:
    seen = [json.loads(line) for line in (base / "train.jsonl").read_text().splitlines()[:2]]
    with tasks.open("a") as file:
        file.writelines(json.dumps({"prompt": row["raw_prompt"].upper(), "good": "Yes."}) + "\n" for row in seen)
    asked = ("--tasks", tasks, "--responder", responder_folder, "--responder-cache", tmp_path / "responses.sqlite")
    done = invoke(*options, "--candidate", base, *asked)
    assert done.exit_code == 1
    assert "2 of the 8 prompts of --tasks were trained on (record 7, 8): figures" in error_line(done)
    done = invoke(*options, "--candidate", base, *asked, "--allow-overlap", "--output-dir", tmp_path / "allowed")
    assert done.exit_code == REFUSED
    assert "2 of the 8 prompts of --tasks were trained on" in done.stderr


def test_a_candidate_is_not_judged_by_what_it_was_trained_on(
    options: list[object], base: Path, pair: Any, tmp_path: Path
) -> None:
    rows = (base / "val.jsonl").read_text() + (base / "train.jsonl").read_text()
    (tmp_path / "all.jsonl").write_text(rows)
    done = invoke(
        *("train", "--data-path", tmp_path / "all.jsonl", "--output-dir", tmp_path / "cheat", "--seed", 1),
        *("--encoder", pair.encoder, "--generator", pair.generator, "--phase1-epochs", 1, "--phase2-epochs", 0),
        *("--batch-size", 8, "--soft-prompt-tokens", 4),
    )
    assert done.exit_code == 0, done.output
    done = invoke(*options, "--candidate", tmp_path / "cheat")
    assert done.exit_code == 1
    assert "of the 20 prompts of the held-out rows were trained on" in error_line(done)


# Stopping and going on -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("better")
def test_an_interrupted_retraining_goes_on_with_the_feedback_it_began_with(
    options: list[object], tmp_path: Path
) -> None:
    config = tmp_path / "retrain.toml"
    config.write_text(SETTINGS.replace("phase1_epochs = 1", "phase1_epochs = 15"))
    program = [sys.executable, "-m", "neuro_latent_core", *map(str, options)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    new = tmp_path / "new"
    until = time.monotonic() + 120
    while not (new / "phase1_epoch_1.pt").is_file() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "go on with --resume" in errors
    assert "Traceback" not in errors
    assert not (new / "decision.json").exists()

    (tmp_path / "feedback.jsonl").unlink()
    assert "already holds a run" in error_line(invoke(*options))
    wanted = config.read_text()
    config.write_text(SETTINGS)
    assert "was started with another config" in error_line(invoke(*options, "--resume"))
    config.write_text(wanted)
    done = invoke(*options, "--resume")
    assert done.exit_code == 0, done.output
    assert "going on at step" in done.stderr
    assert adapter_folder.read(new).training["steps"] == 16 * 7
    assert not (new / "feedback.jsonl").exists()


@pytest.mark.usefixtures("better")
def test_a_decision_is_made_once(options: list[object]) -> None:
    assert invoke(*options).exit_code == 0
    done = invoke(*options, "--resume")
    assert done.exit_code == 0
    assert "decided before" in done.stderr


# Promotion -------------------------------------------------------------------------------------------------------

FAKE_COMMAND = """#!{python}
import json, sys
arguments = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(json.dumps(arguments) + "\\n")
if arguments[:2] == ["adapters", "list"]:
    print(json.dumps({{"adapters": {{"default": {served!r}}}}}))
elif {code}:
    sys.exit({code})
else:
    print("a line before")
    print(json.dumps({{"adapter": arguments[2], "version": 2, "previous": 1, "model_version": "pair-2"}}))
"""


def fake_command(
    monkeypatch: pytest.MonkeyPatch, folder: Path, base: Path, code: int = 0, served: str | None = None
) -> Any:
    """``neuro-latent adapters`` as a script that serves ``base``; gives what it was called with."""
    import hashlib

    log, program = folder / "calls", folder / "fake-command"
    digest = hashlib.sha256((base / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()
    served = served or f"pair-{digest[:12]}-int8"
    program.write_text(FAKE_COMMAND.format(python=sys.executable, log=str(log), served=served, code=code))
    program.chmod(0o755)
    monkeypatch.setattr(commands, "program", lambda: [str(program)])
    return lambda: [json.loads(line) for line in log.read_text().splitlines()]


@pytest.mark.usefixtures("better")
def test_a_better_adapter_is_promoted_and_the_way_back_is_named(
    options: list[object], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fake_command(monkeypatch, tmp_path, base)
    done = invoke(*options, "--promote", tmp_path / "repository", "--url", "grpc://h:1")
    assert done.exit_code == 0, done.output
    assert summary(done)["promoted"] == {"adapter": "default", "version": 2, "previous": 1, "model_version": "pair-2"}
    where = ["--repository", str(tmp_path / "repository"), "--url", "grpc://h:1"]
    assert calls()[-1] == [
        "adapters",
        "add",
        "default",
        "--adapter",
        str(tmp_path / "new" / "adapter"),
        *where,
        "--json",
    ]
    assert f"neuro-latent adapters rollback {' '.join(where)}" in done.stderr


@pytest.mark.usefixtures("better")
def test_it_can_be_promoted_under_another_name(
    options: list[object], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fake_command(monkeypatch, tmp_path, base)
    done = invoke(*options, "--promote", tmp_path, "--adapter-name", "legal")
    assert done.exit_code == 0, done.output
    assert calls()[-1][2] == "legal"


@pytest.mark.usefixtures("better")
def test_a_promotion_that_fails_is_an_error_and_can_be_tried_again(
    options: list[object], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_command(monkeypatch, tmp_path, base, code=1)
    done = invoke(*options, "--promote", tmp_path)
    assert done.exit_code == 1
    assert "`neuro-latent adapters add` failed with exit code 1" in error_line(done)
    fake_command(monkeypatch, tmp_path, base)
    done = invoke(*options, "--promote", tmp_path, "--resume")
    assert done.exit_code == 0
    assert summary(done)["promoted"]["version"] == 2
    digest = adapter_digest(tmp_path / "new" / "adapter")
    calls = fake_command(monkeypatch, tmp_path, base, served=f"pair-{digest}")
    done = invoke(*options, "--promote", tmp_path, "--resume")
    assert done.exit_code == 0
    assert "is served already" in done.stderr
    assert calls()[-1][:2] == ["adapters", "list"]


def adapter_digest(adapter: Path) -> str:
    import hashlib

    return hashlib.sha256((adapter / "adapter_model.safetensors").read_bytes()).hexdigest()[:12]


def test_a_base_that_is_not_what_is_served_is_refused_before_anything_is_trained(
    options: list[object], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_command(monkeypatch, tmp_path, base, served="pair-0123456789ab")
    done = invoke(*options, "--promote", tmp_path)
    assert done.exit_code == 1
    assert "pair-0123456789ab as default, which is not" in error_line(done)
    assert not (tmp_path / "new").exists()


def test_the_defaults_are_shown() -> None:
    done = invoke("retrain", "--show-config")
    assert done.exit_code == 0
    for setting in ("least_rows = 20", "ce = 0.05", "rate_factor = 0.5"):
        assert setting in done.stdout.splitlines()
