"""The command ``neuro-latent``: what it prints where, its exit codes, and commands of other distributions."""

import json
import signal
import subprocess
import sys
import threading
import time
from importlib.metadata import EntryPoint, EntryPoints

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import neuro_latent_client
from neuro_latent_client import Client
from neuro_latent_client.cli import optimize as optimize_module
from neuro_latent_client.cli._interrupt import LIMIT_S
from neuro_latent_core import cli
from neuro_latent_core.cli import FeedbackGroup, LazyGroup, app
from neuro_latent_core.diff import added_lines, changed_words, word_diff
from tests.cases import case

pytestmark = pytest.mark.slow

with_triton = pytest.mark.parametrize("url", ["grpc", "http"], indirect=True)
"""Of what a gateway does not pass on, or says in words of its own."""


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NEURO_LATENT_URL", raising=False)
    return lambda *args, **kwargs: CliRunner().invoke(app, [str(arg) for arg in args], **kwargs)


OWN = {name: f"neuro_latent_client.cli.{name}:{name}" for name in ("optimize", "feedback", "health", "mcp")}
"""The client's entry points."""


@pytest.fixture
def installed(monkeypatch):
    """Pretend that these entry points are installed: name -> "module:object"."""

    def pretend(**values: str) -> None:
        all_of_them = OWN | values
        found = EntryPoints(EntryPoint(*item, LazyGroup.entry_point_group) for item in all_of_them.items())
        monkeypatch.setattr(cli, "entry_points", lambda **select: found.select(**select))

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
    assert result.stdout == "Create a function\n\nWell: 0\n"
    assert "its middle was not used" in result.stderr
    assert "ms, " in result.stderr
    assert "ended by" not in result.stderr


def test_optimize_streams(run, url, script, make_response):
    script.responses = [make_response("Write "), make_response("a test", 0, "length")]
    result = run("optimize", "x", "--url", url, "--stream")
    assert (result.exit_code, result.stdout) == (0, "Write a test\n")
    assert "ended by length\n" in result.stderr


ADDITION = "\n\nIn C.\n\nWith tests."


@pytest.fixture
def terminal(monkeypatch):
    """Let the standard output of a run be a terminal."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(optimize_module, "_is_terminal", lambda: True)


@pytest.mark.parametrize(
    ("extra", "pieces"),
    [([], []), (["--stream"], ["x <b> [red]\r\n ", ADDITION]), (["--stream"], [f"x <b> [red]\r\n {ADDITION}"])],
)
def test_an_addition_is_marked_on_a_terminal(run, url, script, make_response, terminal, extra, pieces):
    prompt = "x <b> [red]\r\n "
    added = "In C.\n\nWith tests."
    script.responses = [make_response(piece, 0, "" if piece == prompt else "stop") for piece in pieces]
    answer = {**script.unary({"raw_prompt": prompt}), "enhanced_prompt": [f"{prompt}\n\n{added}"], "added": [added]}
    script.answer = answer
    result = run("optimize", prompt, "--url", url, *extra)
    assert (result.exit_code, result.stderr.count("\n")) == (0, 1 if extra else 2)
    marked = "\x1b[32m+ In C.\x1b[0m\n\n\x1b[32m+ With tests.\x1b[0m\n"
    assert result.stdout_bytes.decode() == f"{prompt}\n\n{marked}"


@pytest.mark.parametrize(
    "prompt", ["a \n", "\ta\r\nb\r\n", "```\nx\n```", "a\n\nb", "\x1b[31ma\x1b[0m", "né \U0001f600 <s>"]
)
@pytest.mark.parametrize("extra", [[], ["--stream"]])
def test_the_prompt_comes_back_byte_for_byte(grpc_url, script, make_response, prompt, extra):
    script.responses = [make_response(prompt), make_response("\n\nWell: 0", 0, "stop", "Well: 0")]
    command = [sys.executable, "-m", "neuro_latent_core", "optimize", "-", "--url", grpc_url, *extra]
    done = subprocess.run(command, input=f"{prompt}\n".encode(), capture_output=True, check=True)
    assert done.stdout == f"{prompt}\n\nWell: 0\n".encode()
    assert script.seen_inputs() == [{"raw_prompt": prompt}]


@pytest.mark.parametrize(
    ("finish_reason", "reason", "words"),
    [
        ("unchanged", "", "unchanged: nothing to add\n"),
        ("withheld", "not sure enough", "withheld: not sure enough\n"),
        ("deadline", "", "ended by deadline\n"),
    ],
)
@pytest.mark.parametrize("extra", [[], ["--stream"], ["--diff"]])
def test_an_unchanged_prompt_is_all_of_stdout(run, url, script, make_response, finish_reason, reason, words, extra):
    facts = {"finish_reason": [finish_reason], "reason": [reason]}
    script.responses = [make_response("x"), {**make_response(""), **facts}]
    script.answer = {**script.unary({"raw_prompt": "x"}), **facts, "enhanced_prompt": ["x"], "added": [""]}
    result = run("optimize", "x", "--url", url, "--deadline-ms", 50, *extra)
    assert (result.exit_code, result.stdout) == (0, "x\n")
    assert words in result.stderr


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_json_is_the_last_line_on_stdout(run, url, stream):
    result = run("optimize", "x", "--url", url, "--json", *stream)
    assert result.exit_code == 0
    answer = json.loads(result.stdout.splitlines()[-1] if not stream else result.stdout)
    assert answer["sequences"][0]["finish_reason"] == "stop"
    fields = {"text", "added", "score", "generated_tokens", "finish_reason", "reason"}
    assert answer["sequences"][0].keys() == fields
    assert answer.keys() == {
        "raw_prompt",
        "sequences",
        "truncated",
        "cached",
        "model_version",
        "request_id",
        "elapsed_ms",
        "first_piece_ms",
        "transport",
    }


def test_optimize_passes_every_option(run, url, script):
    words = "--max-length 9 --num-return-sequences 2 --temperature 0.5 --top-k 3 --top-p 0.5 --num-beams 1"
    more = "--length-penalty 0.5 --seed 7 --deadline-ms 5000 --min-confidence 0.5"
    result = run("optimize", "x", "--url", url, *words.split(), *more.split(), "--timeout", 5)
    assert result.exit_code == 0
    inputs = dict(script.requests[0].inputs)
    assert 0 < inputs.pop("deadline_ms") <= 5000  # the time until it was sent counts
    assert inputs == {
        "raw_prompt": "x",
        "max_length": 9,
        "num_return_sequences": 2,
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 0.5,
        "num_beams": 1,
        "length_penalty": 0.5,
        "seed": 7,
        "min_confidence": 0.5,
    }
    assert result.stdout == "x\n\nWell: 0\n\nx\n\nWell: 1\n"


def test_a_dash_reads_stdin_without_its_last_newline(run, url, script):
    assert run("optimize", "-", "--url", url, input="two\nlinés\n").exit_code == 0
    assert script.seen_inputs()[0]["raw_prompt"] == "two\nlinés"


def test_stdin_that_is_no_text_is_wrong_usage(run, url, script):
    result = run("optimize", "-", "--url", url, input=b"\xff")
    assert (result.exit_code, script.requests) == (2, [])
    assert "not UTF-8" in result.stderr


def test_diff_marks_what_was_added(run, url):
    assert run("optimize", "a b", "--url", url, "--diff").stdout == "a b\n\n+ Well: 0\n"


def test_diff_marks_what_a_rewrite_has_changed(run, url, script):
    script.answer = {**script.unary({"raw_prompt": ""}), "enhanced_prompt": ["a b, well"], "added": [""]}
    assert run("optimize", "a b", "--url", url, "--diff").stdout == "a [-b-]{+b, well+}\n"


def test_diff_is_coloured_for_people():
    assert added_lines("b", colour=True) == "\x1b[32m+ b\x1b[0m"
    assert changed_words("a b", "a c d", colour=True) == "a \x1b[9;31mb\x1b[0m\x1b[1;32mc d\x1b[0m"


@given(before=st.text(), after=st.text())
def test_a_diff_holds_both_texts(before, after):
    runs = list(word_diff(before, after))
    assert "".join(text for change, text in runs if change != "new") == before
    assert "".join(text for change, text in runs if change != "gone") == after


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"id": i, "raw_prompt": f"prompt {i // 2}"}) + "\n" for i in range(6)) + "\n")
    return path


def read_rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_file_of_prompts(run, url, rows, tmp_path):
    output = tmp_path / "out.jsonl"
    result = run("optimize", "--file", rows, "--output", output, "--url", url, "--concurrency", 3, "--seed", 7)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    answers = sorted(read_rows(output), key=lambda row: row["id"])
    assert [row["id"] for row in answers] == list(range(6))
    assert answers[2]["enhanced_prompt"] == answers[2]["sequences"][0]["text"] == "prompt 1\n\nWell: 0"
    result = run("optimize", "--file", rows, "--url", url)
    assert len(result.stdout.splitlines()) == 6


@with_triton
def test_a_file_is_resumed(run, url, rows, tmp_path, script):
    output = tmp_path / "out.jsonl"
    script.fail("internal", "boom", times=2)
    result = run("optimize", "--file", rows, "--output", output, "--url", url)
    assert result.exit_code == 1
    assert "2 of 6 rows have no answer" in result.stderr
    failed = [row for row in read_rows(output) if "error" in row]
    assert {row["error"] for row in failed} == {"ServerError"}
    assert all("boom" in row["message"] and row["request_id"] in row["message"] for row in failed)
    output.write_text(output.read_text() + '{"id": 9, "raw_pro')  # as a crash leaves it
    script.requests.clear()
    assert run("optimize", "--file", rows, "--output", output, "--url", url).exit_code == 0
    assert sorted(request.inputs["raw_prompt"] for request in script.requests) == sorted(
        row["raw_prompt"] for row in failed
    )
    assert sorted(row["raw_prompt"] for row in read_rows(output)) == [f"prompt {i // 2}" for i in range(6)]
    script.requests.clear()
    assert run("optimize", "--file", rows, "--output", output, "--url", url).exit_code == 0
    assert script.requests == []


@pytest.mark.parametrize("line", ["{", "[]", '{"prompt": "x"}', '{"raw_prompt": 7}'])
def test_a_bad_row_is_named_before_anything_is_asked(run, url, rows, script, line):
    rows.write_text(rows.read_text() + line + "\n")
    result = run("optimize", "--file", rows, "--url", url)
    assert (result.exit_code, script.requests) == (2, [])
    assert "rows.jsonl:8: is not a row like" in result.stderr


NUMBERS = [
    '{"raw_prompt": "x", "a": NaN}',
    '{"raw_prompt": "x", "a": [{"b": -Infinity}]}',
    '{"raw_prompt": "x", "a": 1e999}',
]


@pytest.mark.parametrize("line", NUMBERS)
def test_a_row_that_is_no_json_is_named(run, url, rows, script, line):
    rows.write_text(rows.read_text() + line + "\n")
    result = run("optimize", "--file", rows, "--url", url)
    assert (result.exit_code, script.requests, result.stdout) == (2, [], "")
    assert "rows.jsonl:8: holds NaN, Infinity or a number that is too large" in result.stderr


@pytest.mark.parametrize(
    ("own", "named"),
    [
        ({"enhanced_prompt": "mine", "score": 1}, "a column enhanced_prompt too"),
        ({"request_id": "mine", "truncated": "mine"}, "a column truncated and a column request_id too"),
        ({"sequences": []}, "a column sequences too"),
        ({"message": "mine", "error": None}, "a column error and a column message too"),
    ],
)
def test_no_column_of_a_row_is_overwritten(run, url, rows, script, own, named):
    rows.write_text(rows.read_text() + json.dumps({"raw_prompt": "x", **own}) + "\n")
    result = run("optimize", "--file", rows, "--url", url)
    assert (result.exit_code, script.requests, result.stdout) == (2, [], "")
    assert f"rows.jsonl:8: the answer has {named}; rename the row's own" in result.stderr


def test_the_case_of_own_columns(run, url, script):
    result = run("optimize", "--file", case("21-batch-own-columns/in.jsonl"), "--url", url)
    assert (result.exit_code, script.requests) == (2, [])
    assert "column enhanced_prompt and a column truncated and a column request_id" in result.stderr


HALF, OTHER_HALF = r'{"raw_prompt": "say \ud83d"}', r'{"raw_prompt": "say \udc4d twice"}'
IN_ANOTHER_FIELD = r'{"raw_prompt": "say hello", "note": "\ud800", "deep": [{"\udfff": "é \ud83d"}]}'


@pytest.mark.parametrize(
    ("lines", "bad"),
    [
        ([HALF], {0}),
        ([HALF, '{"raw_prompt": "ok"}', OTHER_HALF], {0, 2}),
        ([IN_ANOTHER_FIELD], set()),
        ([IN_ANOTHER_FIELD, HALF, '{"raw_prompt": "\\ud83d\\udc4d"}'], {1}),
    ],
)
def test_half_a_surrogate_pair_harms_its_row_alone(run, url, tmp_path, script, lines, bad):
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(lines) + "\n")
    for _ in range(2):  # a second run goes on
        result = run("optimize", "--file", source, "--output", output, "--url", url)
        assert (result.exit_code, result.exception and type(result.exception)) == (
            bool(bad),
            SystemExit if bad else None,
        )
        written = {row["raw_prompt"]: row for row in read_rows(output)}
        for number, row in enumerate(map(json.loads, lines)):
            assert row.items() <= written[row["raw_prompt"]].items()
            assert written[row["raw_prompt"]].get("error") == ("InvalidRequestError" if number in bad else None)
    assert len(script.requests) == len(lines) - len(bad)
    result = run("optimize", "--file", source, "--url", url)
    assert result.exit_code == bool(bad)
    assert len(result.stdout.splitlines()) == len(lines)


@pytest.mark.parametrize(("name", "rows", "bad"), [("in.jsonl", 3, 1), ("in_other_field.jsonl", 2, 0)])
def test_the_cases_of_half_a_surrogate_pair(run, url, tmp_path, name, rows, bad):
    command = ["optimize", "--file", case(f"08-batch-lone-surrogate/{name}"), "--output", tmp_path / "out.jsonl"]
    for _ in range(2):
        assert run(*command, "--url", url).exit_code == bool(bad)
        assert sum("error" in row for row in read_rows(tmp_path / "out.jsonl")) == bad
        assert len(read_rows(tmp_path / "out.jsonl")) == rows


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_is_no_part_of_what_is_read(run, url, tmp_path, script, encoding):
    rows, answer = tmp_path / "rows.jsonl", tmp_path / "answer.json"
    rows.write_text('{"raw_prompt": "é"}\n{"raw_prompt": "b"}\n', encoding=encoding)
    assert run("optimize", "--file", rows, "--url", url, "--concurrency", 1).exit_code == 0
    assert run("optimize", "-", "--url", url, input="é\ufeff\r\n".encode(encoding)).exit_code == 0
    assert [request.inputs["raw_prompt"] for request in script.requests] == ["é", "b", "é\ufeff"]
    printed = run("optimize", "x", "--url", url, "--json").stdout.encode(encoding)
    answer.write_bytes(printed)
    for place in ([answer], ["-"]):
        assert run("feedback", "--good", "--answer", *place, "--url", url, input=printed).exit_code == 0


def test_the_cases_of_a_byte_order_mark(run, url, script):
    folder = case("09-byte-order-mark")
    assert run("optimize", "--file", folder / "prompts_bom.jsonl", "--url", url, "--concurrency", 1).exit_code == 0
    assert run("optimize", "-", "--url", url, input=(folder / "prompt_bom.txt").read_bytes()).exit_code == 0
    prompts = [request.inputs["raw_prompt"] for request in script.requests]
    assert prompts == ["Create a function", "write a poem about the sea", "Create a function"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_another_encoding_is_named(run, url, tmp_path, script, encoding):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"raw_prompt": "x"}\n', encoding=encoding)
    for arguments in (["--file", rows], ["-"]):
        result = run("optimize", *arguments, "--url", url, input="x y".encode(encoding))
        assert (result.exit_code, script.requests, "\0" in result.output) == (2, [], False)
        assert "the text is UTF-16; save it as UTF-8" in result.stderr


def test_files_of_others_are_not_overwritten(run, url, rows, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text('{"precious": 1}\n')
    for output in (other, rows):
        before = output.read_text()
        result = run("optimize", "--file", rows, "--output", output, "--url", url)
        assert (result.exit_code, output.read_text()) == (2, before)
        assert "name another file as --output" in result.stderr


def test_feedback_on_a_printed_answer(run, url, script, tmp_path):
    answer = tmp_path / "answer.json"
    answer.write_text(run("optimize", "x", "--url", url, "--json").stdout)
    result = run(
        "feedback", "--good", "--answer", answer, "--url", url, "--edited-prompt", "x, better", "--user", "ann"
    )
    assert (result.exit_code, result.stdout) == (0, "feedback-1 stored\n")
    assert script.requests[1].inputs == {
        "request_id": script.requests[0].request_id,
        "raw_prompt": "x",
        "enhanced_prompt": "x\n\nWell: 0",
        "model_version": "mini-1",
        "rating": 1,
        "edited_prompt": "x, better",
        "user": "ann",
    }
    result = run("feedback", "--bad", "--answer", "-", "--url", url, "--json", input=answer.read_text())
    assert json.loads(result.stdout)["created"] is False


def test_feedback_by_its_texts(run, url, script):
    texts = ["--request-id", "abc", "--raw-prompt", "x", "--enhanced-prompt", "y"]
    assert run("feedback", "--bad", *texts, "--url", url).exit_code == 0
    assert script.requests[0].inputs == {"request_id": "abc", "raw_prompt": "x", "enhanced_prompt": "y", "rating": -1}


def test_other_distributions_add_commands_to_feedback(run, monkeypatch):
    found = EntryPoints(
        [
            EntryPoint("feedback", OWN["feedback"], LazyGroup.entry_point_group),
            EntryPoint("shout", f"{__name__}:shout", FeedbackGroup.entry_point_group),
        ]
    )
    monkeypatch.setattr(cli, "entry_points", lambda **select: found.select(**select))
    assert run("feedback", "shout", "hello").stdout == "HELLO\n"
    assert " shout " in run("feedback", "--help").stdout


@with_triton
def test_the_api_key_may_come_from_the_environment(run, url, script):
    assert run("optimize", "x", "--url", url, env={"NEURO_LATENT_API_KEY": "s3cret"}).exit_code == 0
    assert script.requests[0].headers["authorization"] == "Bearer s3cret"


def test_retries_are_silent(url, script):
    script.fail("busy", "the queue is full")
    command = [sys.executable, "-m", "neuro_latent_core", "optimize", "x", "--url", url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "x\n\nWell: 0\n"
    assert "stamina" not in done.stderr


def test_the_shell_completes(run):
    assert "--install-completion" in run("--help").stdout


def test_the_url_may_come_from_the_environment(run, url):
    assert run("optimize", "x", env={"NEURO_LATENT_URL": url}).exit_code == 0


@pytest.mark.parametrize(
    ("kind", "text", "exit_code"),
    [("invalid", "max_length: 0 is not in 1..512", 2), ("busy", "the queue is full", 1), ("internal", "boom", 1)],
)
@pytest.mark.parametrize("extra", [[], ["--stream"], ["--json"]])
@with_triton
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
        ["optimize", "x", "--file", "rows.jsonl"],
        ["optimize", "x", "--output", "out.jsonl"],
        ["optimize", "--file", "rows.jsonl", "--stream"],
        ["optimize", "--file", "none.jsonl"],
        ["optimize", "x", "--diff", "--json"],
        ["optimize", "x", "--ca", "none.pem"],
        ["feedback"],
        ["feedback", "--good"],
        ["feedback", "--good", "--answer", "none.json"],
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
    assert (state["live"], state["ready"]) == (True, False)
    assert "not ready" in state["problem"]


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
    assert result.stderr == "neuro-latent train is not installed: pip install neuro-latent-trainer\n"


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


def interruptible(*arguments):
    """The command, which hears SIGINT."""
    # A shell starts its background jobs with SIGINT ignored, and CI may be one.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from neuro_latent_core.cli import main; main()"
    return [sys.executable, "-c", code, *arguments]


def ended(process):
    """What an interrupted command has said on stderr; one that does not end is killed."""
    try:
        return process.communicate(timeout=15)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"it still ran 15 seconds later: {process.communicate()}")


def test_interrupting_a_stream_cancels_it(url, script, make_response, request):
    script.responses, script.delay_s = [make_response("word ")] * 400, 0.02
    command = interruptible("optimize", "x", "--url", url, "--stream")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.read(5) == "word "
        process.send_signal(signal.SIGINT)
        errors = ended(process)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    until = time.monotonic() + 5
    while "rest" in request.node.name and not script.cancelled and time.monotonic() < until:  # told by the connection
        time.sleep(0.01)
    assert script.cancelled


@pytest.mark.parametrize("signals", [1, 2])
def test_an_interrupted_command_ends_although_the_server_does_not(url, script, make_response, signals):
    script.responses, script.delay_s = [make_response("word ")] * 2, 60
    cancel, script.cancel = script.cancel, lambda request_id: None
    command = interruptible("optimize", "x", "--url", url, "--stream")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.read(5) == "word "
        began = time.monotonic()
        for _ in range(signals):
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
        errors = ended(process)
    cancel(script.requests[0].request_id)  # else the server's thread outlives the test
    assert (process.returncode, "Traceback" in errors) == (130, False), errors
    assert time.monotonic() - began < (LIMIT_S + 2 if signals == 1 else 1.5)


def test_clean_up_waits_for_no_lock_that_grpc_has_left_taken(grpc_url, script, make_response):
    script.responses, script.delay_s = [make_response("word ")] * 2, 60
    client = Client(grpc_url)
    stream = client.stream("x")
    assert next(stream).text == "word "
    began = time.monotonic()
    stuck = stream._responses._call._state.condition
    assert stuck.acquire(timeout=5)  # as an exception in the middle of grpc's code leaves it
    closing = threading.Thread(target=lambda: (stream.close(), client.close()), daemon=True)
    closing.start()
    closing.join(30)
    stuck.release()
    script.cancel(script.requests[0].request_id)
    assert not closing.is_alive()
    assert time.monotonic() - began < 15
