"""The command: its help, and what it refuses."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from neuro_latent_benchmarks.cli import app


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "160")
    return lambda *arguments: CliRunner().invoke(app, arguments)


@pytest.mark.parametrize("command", ["decode", "serve", "trace"])
def test_help_teaches_by_examples(run, command: str) -> None:
    done = run(command, "--help")
    assert done.exit_code == 0
    assert f"neuro-latent bench {command} --" in done.output
    for option in ("--json", "--plot", "--quick", "--repository"):
        assert option in done.output


def test_help_is_fast_because_torch_is_not_loaded() -> None:
    code = (
        "import sys; from neuro_latent_core.cli import app\n"
        "try: app(['bench', 'serve', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'onnxruntime', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Triton" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["decode"], "Missing option '--repository'"),
        (["serve"], "--repository REPO or --url"),
        (["serve", "--url", "grpc://here", "--repository", "x"], "--repository REPO or --url"),
        (["decode", "--repository", "x", "--rows", "1,zero"], "--rows 1,zero"),
        (["serve", "--repository", "x", "--concurrency", "0"], "--concurrency 0"),
        (["trace", "--repository", "x", "--clients", "0"], "--clients 0"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_names_the_option(run, arguments: list[str], said: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert said in done.output


def test_a_folder_that_is_no_repository_is_an_error(run, tmp_path: Path) -> None:
    done = run("decode", "--repository", str(tmp_path / "none"))
    assert done.exit_code in (1, 2)
    assert done.stdout == ""
    assert "neuro-latent export" in done.output
