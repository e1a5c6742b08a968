"""``neuro-latent export``: exit codes, messages, the JSON line."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from neuro_latent_export import parity
from neuro_latent_export.cli import export
from neuro_latent_export.precision import PRECISIONS

app = typer.Typer()
app.command()(export)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "400"})


def test_an_export_says_how_to_serve_it_and_prints_its_manifest_last(
    adapter: Path, traced: None, tmp_path: Path
) -> None:
    output = tmp_path / "repository"
    done = run("--adapter", adapter, "--output", output, "--json")
    assert done.exit_code == 0, done.output
    (line,) = done.stdout.splitlines()
    assert json.loads(line) == json.loads((output / "manifest.json").read_text())
    assert f"neuro-latent serve --repository {output}" in done.stderr
    assert "12 of 12 prompts token-identical to torch" in done.stderr


def test_without_json_nothing_is_on_stdout(adapter: Path, traced: None, tmp_path: Path) -> None:
    done = run("--adapter", adapter, "--output", tmp_path / "repository")
    assert (done.exit_code, done.stdout) == (0, "")


def test_an_adapter_alone_is_exported_and_told_how_to_add_it(adapter: Path, traced: None, tmp_path: Path) -> None:
    output = tmp_path / "alone"
    done = run("--adapter", adapter, "--output", output, "--only-adapter", "--precision", "int8", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == json.loads((output / "adapter.json").read_text())
    assert f"neuro-latent adapters add NAME --adapter {output}" in done.stderr


def no_adapter(options: dict[str, Any], tmp_path: Path) -> str:
    options["--adapter"] = tmp_path / "nowhere"
    return "no adapter in"


def no_encoder(options: dict[str, Any], tmp_path: Path) -> str:
    options["--encoder"] = "./nowhere"
    return "no such folder: './nowhere'"


def swapped(options: dict[str, Any], tmp_path: Path) -> str:
    options["--generator"] = options["--encoder"]
    return "cannot load the generator from the folder"


def no_repository(options: dict[str, Any], tmp_path: Path) -> str:
    (tmp_path / "repository").write_text("precious")
    return "exists and is no exported repository; choose another --output or remove it"


def below_a_file(options: dict[str, Any], tmp_path: Path) -> str:
    (tmp_path / "file").write_text("precious")
    options["--output"] = tmp_path / "file" / "repository"
    return "file"


def added_adapters(options: dict[str, Any], tmp_path: Path) -> str:
    (tmp_path / "repository" / "projector" / "2" / "adapters" / "team").mkdir(parents=True)
    (tmp_path / "repository" / "manifest.json").write_text("{}")
    return "has the adapters team; a new export would delete them"


@pytest.mark.parametrize("mistake", [no_adapter, no_encoder, swapped, no_repository, below_a_file, added_adapters])
def test_a_failure_is_one_line_and_exit_code_one(adapter: Path, pair: Any, tmp_path: Path, mistake: Any) -> None:
    options = {"--adapter": adapter, "--output": tmp_path / "repository", "--encoder": pair.encoder}
    words = mistake(options, tmp_path)
    done = run(*(part for option in options.items() for part in option), "--json")
    assert done.exit_code == 1
    assert done.stdout == ""
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert words in error
    assert "Traceback" not in done.output


def test_a_repository_that_differs_from_torch_is_exit_code_one_and_not_written(
    adapter: Path, traced: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "GRAPH_TOLERANCE", -1.0)
    done = run("--adapter", adapter, "--output", tmp_path / "repository")
    assert done.exit_code == 1
    assert "error: encoder/1/model.onnx: differs from torch by" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_missing_option_is_wrong_usage() -> None:
    assert run("--output", "somewhere").exit_code == 2


def test_a_quantized_export_says_what_it_loses(
    adapter: Path, traced: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    int8 = replace(PRECISIONS["int8"], max_cross_entropy_change=1.0, min_next_token_agreement=0.0)
    monkeypatch.setitem(PRECISIONS, "int8", int8)
    data = tmp_path / "pairs.csv"
    data.write_text("ask,better\n" + "write a poem,Write a poem of four lines.\n" * 33)
    options = ("--precision", "int8", "--check-data", data, "--columns", "raw=ask,enhanced=better", "--check-rows", 32)
    done = run("--adapter", adapter, "--output", tmp_path / "repository", *options, "--json")
    assert done.exit_code == 0, done.output
    agreement = json.loads(done.stdout)["agreement"]
    assert (agreement["data"], agreement["rows"]) == ("pairs.csv", 32)
    assert f"int8 against fp32 on 32 rows of pairs.csv: {agreement['cross_entropy_change']:+.4f} nats" in done.stderr


def test_a_precision_that_loses_too_much_is_exit_code_one_and_not_written(
    adapter: Path, traced: None, tmp_path: Path
) -> None:
    done = run("--adapter", adapter, "--output", tmp_path / "repository", "--precision", "int4", "--check-rows", 32)
    assert done.exit_code == 1
    assert "error: int4 loses the same next token before" in done.stderr
    assert "export with --precision int8 or --precision fp32" in done.stderr
    assert not list(tmp_path.iterdir())


def test_check_data_is_read_before_anything_is_exported(adapter: Path, tmp_path: Path) -> None:
    done = run("--adapter", adapter, "--precision", "int8", "--check-data", tmp_path / "nowhere.jsonl")
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [f"error: {tmp_path / 'nowhere.jsonl'} does not exist"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--precision", "int2"), "'int2' is not one of 'fp32', 'int8', 'int4'"),
        (("--check-data", "x.jsonl"), "Invalid value for --check-data: fp32 is compared with torch and needs no data"),
        (("--only-adapter", "--precision", "int8", "--check-data", "x"), "an adapter alone is compared with torch"),
        (("--only-adapter", "--backend", "onnxruntime"), "only repositories of the python backend take adapters"),
        (("--precision", "int8", "--columns", "raw=a"), "Invalid value for --columns: names the columns of"),
        (("--precision", "int8", "--check-rows", "31"), "Invalid value for '--check-rows'"),
    ],
)
def test_options_that_do_not_fit_are_wrong_usage(adapter: Path, options: tuple[str, ...], words: str) -> None:
    done = run("--adapter", adapter, *options)
    assert done.exit_code == 2
    assert words in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "Invalid value for --adapter: is missing; to export a T5 alone, give --no-adapter"),
        (("--no-adapter",), "Invalid value for --generator: is missing"),
        (("--no-adapter", "--adapter", "a"), "Invalid value for --no-adapter: exports a T5 alone, so --adapter has no"),
        (("--no-adapter", "--generator", "g", "--encoder", "e"), "exports a T5 alone, so --encoder has no use"),
        (("--no-adapter", "--generator", "g", "--only-adapter"), "exports a T5 alone, so --only-adapter has no use"),
        (("--adapter", "a", "--prefix", "p"), "Invalid value for --prefix: is for --no-adapter"),
    ],
)
def test_an_adapter_or_a_t5_alone_is_exported_and_not_both(options: tuple[str, ...], words: str) -> None:
    done = run(*options)
    assert done.exit_code == 2
    assert words in done.stderr


def test_help_says_what_each_precision_is() -> None:
    shown = run("--help").output
    for name in PRECISIONS:
        assert re.search(rf"^ *{name}  \w", shown, re.MULTILINE), name
