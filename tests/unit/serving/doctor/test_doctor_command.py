"""The command: its exit codes, its JSON, and that it changes nothing."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from click.testing import Result
from typer.testing import CliRunner

from neuro_latent_core.cli import app
from neuro_latent_serving.doctor import installation
from neuro_latent_serving.doctor.findings import Outcome
from neuro_latent_serving.repository.check import FileProblem

Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("COLUMNS", "80")
    ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics", "gateway")]
    return lambda *arguments: CliRunner().invoke(app, ["doctor", *ports, *map(str, arguments)])


def tree(folder: Path) -> dict[Path, tuple[int, int]]:
    stats = {path: path.stat() for path in folder.rglob("*")}
    return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}


def test_a_healthy_repository_passes_and_is_left_as_it_is(run: Run, repository: Path) -> None:
    before = tree(repository)
    result = run("--repository", repository)
    assert result.exit_code == 0, result.output
    assert "server-insecure" in result.stdout  # the wheel's
    assert result.stdout.endswith("1 warning\n")
    assert tree(repository) == before
    assert run("--repository", repository, "--strict").exit_code == 1


def test_errors_are_told_with_their_way_out(run: Run, spoilt: Path) -> None:
    (spoilt / "encoder" / "1" / "model.onnx").unlink()
    result = run("--repository", spoilt, "--json")
    facts = json.loads(result.stdout)
    assert (result.exit_code, facts["exit_code"], facts["errors"], facts["warnings"]) == (1, 1, 1, 1)
    (error,) = (finding for finding in facts["findings"] if finding["severity"] == "error")
    assert (error["id"], error["where"]) == ("file-missing", "encoder/1/model.onnx")
    assert "neuro-latent export" in error["mend"]
    assert "error file-missing  encoder/1/model.onnx" in result.stderr


@pytest.mark.parametrize(
    "arguments", [["--http-port=80"], ["--repository=none"], ["--tritonserver=none"], ["--host=::1"], ["--no-such"]]
)
def test_wrong_usage(run: Run, arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_a_check_that_fails_is_a_finding_and_no_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(models: object) -> Iterator[Outcome]:
        yield "so far"
        raise ZeroDivisionError("of this program")

    monkeypatch.setattr(installation, "check_shared_memory", broken)
    result = run("--json")
    assert result.exit_code == 1
    assert "check-failed" in {finding["id"] for finding in json.loads(result.stdout)["findings"]}
    assert "Traceback" not in result.output


def test_the_page_lists_every_finding() -> None:
    sources = [file.read_text() for file in Path(installation.__file__).parent.glob("*.py")]
    ids = {(id_, severity) for text in sources for severity, id_ in re.findall(r'(\w+), "([a-z-]+)", ', text)}
    ids |= {(id_, "ERROR") for text in sources for id_ in re.findall(r'id_ = "([a-z-]+)"', text)}
    ids |= {(f"file-{kind}", "ERROR") for kind in get_args(get_type_hints(FileProblem)["kind"])}
    page = (Path(__file__).parents[4] / "docs" / "doctor.md").read_text()
    listed = re.findall(r"^\| `([a-z-]+)` \| (\w+) \|", page, re.MULTILINE)
    assert sorted((id_, severity.upper()) for id_, severity in listed) == sorted(
        (id_, severity) for id_, severity in ids if severity in ("ERROR", "WARNING", "NOTE")
    )
