"""The README's commands do what it says, as they stand there; the test names those that it leaves out, and why."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.commands import ENVIRONMENT, ROOT, readme_blocks, readme_commands, served

pytestmark = pytest.mark.server

PROGRAMS = Path(sys.executable).parent

NOT_RUN_HERE = {
    "make demo": "test_distributions",
    "make test": "this is part of it",
    "source .venv/bin/activate": "the tests run in it",
    "neuro-latent gateway --triton": "a Triton on another machine; tests/unit/serving/gateway",
    "--upstream https": "a server on the Internet; tests/unit/serving/gateway/test_gateway_openai.py",
    "--no-adapter": "a T5 from a model hub; tests/triton/test_served_plain.py",
    "neuro-latent retrain": "test_retrain runs it",
    "runs/first/repository": "the repository of that retraining; test_retrain runs it",
    "neuro-latent bench": "minutes of measuring; test_bench",
    "neuro-latent train --data-path": "a minute of training; test_train_to_answer",
    "neuro-latent serve --run": "test_train_to_answer",
    "neuro-latent evaluate --adapter": "trains two baselines; tests/unit/trainer",
    "neuro-latent evaluate --compare": "wants two runs; tests/unit/trainer",
}
"""What a command contains that is not run here, and where it is tested."""


def commands() -> list[str]:
    """The README's commands that are run here."""
    return [line for line in readme_commands() if not any(part in line for part in NOT_RUN_HERE)]


def test_every_reason_not_to_run_a_command_still_has_one() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [part for part in NOT_RUN_HERE if part not in text] == []


def test_git_ignores_every_file_that_the_readme_makes() -> None:
    options = "output|output-dir|data-path|data|train|val-path|repository|run|base|candidate|promote|api-keys"
    text = "\n".join(readme_commands())
    names = set(re.findall(rf"--(?:{options}) (\S+)", text)) | {"keys"}
    made = sorted(name for name in names if not name.startswith("models/"))
    assert {"repository", "faster", "sample.jsonl", "feedback.jsonl", "runs/first"} <= set(made)
    ignored = subprocess.run(
        [
            "git",
            "check-ignore",
            "--no-index",
            *(f"{name}/x" if "." not in name and name != "keys" else name for name in made),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert len(ignored) == len(made), set(made) - set(ignored)


def test_imports_that_the_readme_names_work() -> None:
    imports = re.findall(r"`(from \S+ import \w+)`", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert any("PromptOptimizer" in line for line in imports)
    for line in imports:
        subprocess.run([sys.executable, "-c", line], check=True, env=ENVIRONMENT)


def test_the_commands_and_the_program_of_the_readme_run(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "models", tmp_path / "models")
    for name in ("team", "second"):  # runs, as far as serving reads them
        shutil.copytree(ROOT / "models" / "neuro-latent-mini" / "adapter", tmp_path / "runs" / name / "adapter")
    environment = {
        **ENVIRONMENT,
        "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
        "NEURO_LATENT_FEEDBACK_URL": f"sqlite:///{tmp_path}/feedback.sqlite3",
    }

    def run(command: str | list[str]) -> str:
        done = subprocess.run(
            command,
            shell=isinstance(command, str),
            executable="/bin/bash" if isinstance(command, str) else None,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{command}: {done.stderr or done.stdout}"
        return done.stdout

    lines = commands()
    start = next(i for i, line in enumerate(lines) if line.startswith("neuro-latent serve"))
    for line in lines[:start]:
        run(line)
    with served(*lines[start].split()[2:], cwd=tmp_path, environment=environment) as server:
        addresses = {"127.0.0.1:8000": "http", "127.0.0.1:8001": "grpc", "127.0.0.1:8080": "gateway"}
        here = {known: str(server[name]).split("://")[1] for known, name in addresses.items()}
        environment["NEURO_LATENT_URL"] = str(server["grpc"])

        def moved(text: str) -> str:
            for known, address in here.items():
                text = text.replace(known, address)
            return text

        outputs = {line: run(moved(line)) for line in lines[start + 1 :]}
        programs = [code for language, code in readme_blocks() if language == "python"]
        assert programs
        for code in programs:
            assert run([sys.executable, "-c", moved(code)]).strip()

    answered = [output for line, output in outputs.items() if "optimize" in line]
    assert len(answered) >= 5
    assert all(output.strip() for output in answered)
    refused = [line for line, output in outputs.items() if re.search(r'"(error|status)": ?("|[45])', output)]
    assert refused == []
