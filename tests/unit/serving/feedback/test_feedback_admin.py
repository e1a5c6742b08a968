"""``neuro-latent feedback``: what it prints, what it deletes, and its exit codes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from neuro_latent_serving.feedback import FeedbackEntry, FeedbackStore
from neuro_latent_serving.feedback.cli import app
from neuro_latent_serving.settings import FEEDBACK_VARIABLE, feedback_url

GOOD = FeedbackEntry("r1", "raw", "enhanced ✓", 1, user="ann", model_version="v1")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv(FEEDBACK_VARIABLE, raising=False)
    store = FeedbackStore(feedback_url())
    store.add(GOOD)
    store.add(replace(GOOD, request_id="r2", user="bob"))
    store.close()
    return lambda *args, **kwargs: CliRunner().invoke(app, args, **kwargs)


def test_the_default_is_a_file_among_the_users_data(run, tmp_path: Path) -> None:
    assert (tmp_path / "data" / "neuro-latent" / "feedback.sqlite3").is_file()


def test_export_to_stdout_and_to_a_file(run, tmp_path: Path) -> None:
    result = run("export")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["request_id"] for row in rows] == ["r1", "r2"]
    assert rows[0]["enhanced_prompt"] == "enhanced ✓"
    file = tmp_path / "out.jsonl"
    assert run("export", "--user", "bob", "--since", "2020-01-01", "--output", str(file)).exit_code == 0
    assert [json.loads(line)["user"] for line in file.read_text().splitlines()] == ["bob"]
    assert run("export", "--output", str(tmp_path / "none" / "x")).exit_code == 1


def test_stats(run) -> None:
    assert "v1: 2" in run("stats").stdout
    counts = json.loads(run("stats", "--json").stdout)
    assert (counts["total"], counts["users"]) == (2, 2)


def test_purge_asks_first(run) -> None:
    assert run("purge", "--user", "ann", input="n\n").exit_code == 1
    assert json.loads(run("stats", "--json").stdout)["total"] == 2
    assert run("purge", "--user", "ann", "--yes").stdout == "deleted 1\n"
    assert run("purge", "--older-than", "90d", "--yes", "--json").stdout == '{"deleted": 0}\n'


@pytest.mark.parametrize(
    "args", [["purge"], ["purge", "--older-than", "soon"], ["purge", "--older-than", "9" * 12 + "w"]]
)
def test_wrong_usage(run, args: list[str]) -> None:
    assert run(*args).exit_code == 2


def test_errors_are_one_line(run) -> None:
    result = run("stats", "--url", "nowhere")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    result = run("stats", "--url", "sqlite:////proc/none/feedback.sqlite3")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "/proc/none" in result.stderr
