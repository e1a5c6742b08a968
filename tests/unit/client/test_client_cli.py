"""The command ``neuro-latent``: what it prints where, its exit codes, and commands of other distributions."""

import json
import signal
import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints

import pytest
import typer
from typer.testing import CliRunner

import neuro_latent_client
from neuro_latent_client.cli import _lazy, app


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NEURO_LATENT_URL", raising=False)
    return lambda *args, **kwargs: CliRunner().invoke(app, [str(arg) for arg in args], **kwargs)


@pytest.fixture
def installed(monkeypatch):
    """Pretend that these entry points are installed: name -> "module:object"."""

    def pretend(**values: str) -> None:
        found = EntryPoints(EntryPoint(name, value, _lazy.ENTRY_POINT_GROUP) for name, value in values.items())
        monkeypatch.setattr(_lazy, "entry_points", lambda **select: found.select(**select))

    pretend()
    return pretend


def shout(word: str) -> None:
    """Shout a word."""
    typer.echo(word.upper())


tools = typer.Typer()
tools.command()(shout)


def test_optimize_prints_text_on_stdout_and_notes_on_stderr(run, url):
    result = run("optimize", "Create a function", "--url", url)
    assert result.exit_code == 0
    assert result.stdout == "Create a function, well: 0\n"
    assert "its end was not used" in result.stderr
    assert "ms, " in result.stderr
    assert "ended by" not in result.stderr


def test_optimize_streams(run, url, script, make_response):
    script.responses = [make_response("Write "), make_response("a test", 0, "length")]
    result = run("optimize", "x", "--url", url, "--stream")
    assert (result.exit_code, result.stdout) == (0, "Write a test\n")
    assert "the answer ended by length" in result.stderr


def test_streamed_text_that_is_replaced_is_shown_again(run, url, script, make_response):
    script.responses = [make_response("bad"), make_response("good", 0, "fallback", replaces=True)]
    result = run("optimize", "x", "--url", url, "--stream")
    assert result.stdout == "bad\ngood\n"
    assert "replaced the text so far" in result.stderr


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_json_is_the_last_line_on_stdout(run, url, stream):
    result = run("optimize", "x", "--url", url, "--json", *stream)
    assert result.exit_code == 0
    answer = json.loads(result.stdout.splitlines()[-1] if not stream else result.stdout)
    assert answer["sequences"][0]["finish_reason"] == "stop"
    assert answer.keys() == {
        "raw_prompt",
        "sequences",
        "truncated",
        "model_version",
        "request_id",
        "elapsed_ms",
        "first_piece_ms",
        "transport",
    }


def test_optimize_passes_every_option(run, url, script):
    words = "--max-length 9 --num-return-sequences 2 --temperature 0.5 --top-k 3 --top-p 0.5 --num-beams 2"
    more = "--length-penalty 0.5 --seed 7 --deadline-ms 50"
    result = run("optimize", "x", "--url", url, *words.split(), *more.split(), "--timeout", 5)
    assert result.exit_code == 0
    assert script.requests[0].inputs == {
        "raw_prompt": "x",
        "max_length": 9,
        "num_return_sequences": 2,
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 0.5,
        "num_beams": 2,
        "length_penalty": 0.5,
        "seed": 7,
        "deadline_ms": 50,
    }
    assert result.stdout == "x, well: 0\n\nx, well: 1\n"


def test_a_dash_reads_stdin_without_its_last_newline(run, url, script):
    assert run("optimize", "-", "--url", url, input="two\nlinés\n").exit_code == 0
    assert script.seen_inputs()[0]["raw_prompt"] == "two\nlinés"


def test_stdin_that_is_no_text_is_wrong_usage(run, url, script):
    result = run("optimize", "-", "--url", url, input=b"\xff")
    assert (result.exit_code, script.requests) == (2, [])
    assert "not UTF-8" in result.stderr


def test_the_url_may_come_from_the_environment(run, url):
    assert run("optimize", "x", env={"NEURO_LATENT_URL": url}).exit_code == 0


@pytest.mark.parametrize(
    ("kind", "text", "exit_code"),
    [("invalid", "max_length: 0 is not in 1..512", 2), ("busy", "the queue is full", 1), ("internal", "boom", 1)],
)
@pytest.mark.parametrize("extra", [[], ["--stream"], ["--json"]])
def test_errors_are_one_line_and_an_exit_code(run, url, script, kind, text, exit_code, extra):
    script.fail(kind, text, times=9)
    result = run("optimize", "x", "--url", url, *extra)
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert text in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "args",
    [
        ["optimize"],
        ["optimize", "x", "--max-length", "many"],
        ["optimize", "x", "--url", "localhost:8001"],
        ["optimize", "x", "--timeout", "0"],
        ["optimize", "x", "--stream", "--num-return-sequences", "2"],
        ["optimise", "x"],
        ["health", "--url", "nowhere"],
    ],
)
def test_wrong_usage_exits_2(run, args):
    result = run(*args)
    assert result.exit_code == 2
    assert result.stderr
    assert result.stdout == ""


def test_health_exit_code_tells_readiness(run, url, script):
    result = run("health", "--url", url)
    assert (result.exit_code, result.stdout) == (0, f"{url} ready\n")
    script.ready = False
    result = run("health", "--url", url, "--json")
    assert result.exit_code == 1
    state = json.loads(result.stdout)
    assert (state["live"], state["ready"], state["problem"]) == (True, False, "the server is not ready")


def test_health_of_nobody(run):
    result = run("health", "--url", "http://127.0.0.1:1")
    assert (result.exit_code, result.stdout) == (1, "http://127.0.0.1:1 not live\n")
    assert "Connection refused" in result.stderr


def test_version(run):
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"neuro-latent {neuro_latent_client.__version__}\n")


def test_a_missing_distribution_is_named(run, installed):
    result = run("train", "--data-path", "x.jsonl")
    assert result.exit_code == 2
    assert result.stderr == (
        "neuro-latent train comes with the distribution neuro-latent-trainer: pip install ./trainer\n"
    )


def test_help_lists_all_commands_without_importing_them(run, installed):
    installed(train="no_such_module:train", extra="no_such_module:extra")
    result = run("--help")
    assert result.exit_code == 0
    for name in ["optimize", "health", "train", "export", "serve", "extra"]:
        assert f" {name} " in result.stdout


def test_a_function_becomes_a_command(run, installed):
    installed(shout=f"{__name__}:shout")
    assert run("shout", "hello").stdout == "HELLO\n"
    assert "Shout a word." in run("shout", "--help").stdout
    assert run("shout").exit_code == 2


def test_a_typer_becomes_a_group(run, installed):
    installed(tools=f"{__name__}:tools")
    assert run("tools", "shout", "hello").stdout == "HELLO\n"
    assert run("tools", "hello").exit_code == 2


def test_an_entry_point_that_cannot_be_loaded_is_one_line(run, installed):
    installed(train="no_such_module:train")
    result = run("train")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "No module named 'no_such_module'" in result.stderr


def test_interrupting_a_stream_cancels_it(url, script, make_response):
    script.responses, script.delay_s = [make_response("word ")] * 400, 0.02
    # A shell starts its background jobs with SIGINT ignored, and CI may be one.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from neuro_latent_client.cli import main; main()"
    command = [sys.executable, "-c", code, "optimize", "x", "--url", url, "--stream"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.read(5) == "word "
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert script.cancelled
