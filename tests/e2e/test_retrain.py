"""The loop on a real server: people edit and rate answers, a better adapter is promoted while clients ask.

On the embedded pair, whose T5 can be steered; a pair with random weights would learn no style.
"""

import json
import re
import shlex
import shutil
import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from neuro_latent_client import Client, Optimization
from neuro_latent_core.form import join
from neuro_latent_export.repository import export_repository
from neuro_latent_serving.launch import FREE_PORTS, ServerConfig, TritonServer
from neuro_latent_serving.settings import FEEDBACK_VARIABLE
from neuro_latent_trainer.model import PromptOptimizer
from neuro_latent_trainer.sample import encode_rows, sample_rows
from tests.e2e.commands import COMMAND, ENVIRONMENT, ROOT, readme_commands

pytestmark = pytest.mark.server

LOOP = re.compile(r"neuro-latent (retrain|adapters rollback) ")

ADAPTER = ROOT / "models" / "neuro-latent-mini" / "adapter"
TRAIN, PROMOTE, JUDGE, ROLL_BACK = (line for line in readme_commands() if "runs/first" in line and LOOP.match(line))
STYLE = "Act as an expert. "
TOKENS = 32
CLIENTS = 16
FEEDBACK, TRAINED = 200, 264
"""Of the sample's rows: first those that get feedback, then the original training data, then what is held out of it."""
SETTINGS = """
phase1_epochs = 6
phase2_epochs = 1
rate_factor = 7.0
judged_rows = 32
max_length = 24
margins.withheld = 0.25
margins.unchanged = 0.25
"""
"""So little data needs the usual rate, seven times the embedded adapter's own; judged on fewer and shorter texts, for
time. Sixty texts tell a share to 0.15; that neither share has fallen by 0.1 they could not show."""


@dataclass(frozen=True)
class Loop:
    """A server whose users have given feedback, and what ``neuro-latent retrain`` needs to learn from it."""

    server: TritonServer
    repository: Path
    folder: Path
    feedback: str
    held_out: list[str]

    def texts(self) -> list[str]:
        """What the server writes now for prompts that nobody has rated."""
        with Client(self.server.grpc_url) as client:
            return [good(answer).text for answer in client.optimize_many(self.held_out, max_length=TOKENS)]

    def run(self, line: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A command of the README, on this server."""
        # More threads than cores are free make each step many times slower.
        environment = {**ENVIRONMENT, FEEDBACK_VARIABLE: self.feedback, "OMP_NUM_THREADS": "1"}
        words = [COMMAND, *shlex.split(line)[1:], "--url", self.server.grpc_url, "--json", *arguments]
        return subprocess.run(words, capture_output=True, text=True, timeout=280, env=environment, cwd=self.folder)

    def retrain(self, line: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """``neuro-latent retrain`` as the README has it, with the settings of this test."""
        data = ("--data-path", "data.jsonl", "--val-path", "val.jsonl", "--config", "retrain.toml")
        return self.run(line, *data, "--device", "cpu", *arguments)


def good(answer: Any) -> Optimization:
    """An answer that is no error."""
    assert isinstance(answer, Optimization), answer
    return answer


def styled(texts: list[str]) -> float:
    """The share of the texts that have the style."""
    return sum(STYLE.strip() in text for text in texts) / len(texts)


def give_feedback(client: Client, rows: list[dict[str, Any]]) -> None:
    """7 in 10 answers are edited into the style; of those that have it, 2 are liked; without it, 1 is disliked."""
    answers = client.optimize_many([row["raw_prompt"] for row in rows], max_length=TOKENS)

    def rate(number: int, row: dict[str, Any], answer: Any) -> None:
        wanted = join(row["raw_prompt"], STYLE + row["complement"])
        liked = number % 10 in (7, 8)
        client.feedback(
            good(answer).request_id,
            1 if liked else -1,
            raw_prompt=row["raw_prompt"],
            enhanced_prompt=wanted if liked else answer.text,
            edited_prompt=wanted if number % 10 < 7 else "",
            model_version=answer.model_version,
        )

    with ThreadPoolExecutor(8) as people:
        list(people.map(rate, range(len(rows)), rows, answers))


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    folder = tmp_path_factory.mktemp("loop")
    shutil.copytree(ADAPTER, folder / "runs" / "first" / "adapter")
    repository = folder / "runs" / "first" / "repository"
    export_repository(folder / "runs" / "first", repository)
    rows = sample_rows()
    (folder / "data.jsonl").write_bytes(encode_rows(rows[FEEDBACK:TRAINED], ".jsonl"))
    (folder / "val.jsonl").write_bytes(encode_rows(rows[TRAINED:], ".jsonl"))
    (folder / "retrain.toml").write_text(SETTINGS)
    url = f"sqlite:///{folder / 'feedback.sqlite3'}"
    config = ServerConfig(ports=FREE_PORTS, drain_timeout=3, environment={FEEDBACK_VARIABLE: url})
    with TritonServer(repository, config) as server:
        with Client(server.grpc_url) as client:
            give_feedback(client, rows[:FEEDBACK])
        yield Loop(server, repository, folder, url, [row["raw_prompt"] for row in rows[TRAINED:]])


def test_a_bad_adapter_is_refused(loop: Loop) -> None:
    model = PromptOptimizer.from_pretrained(ADAPTER)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.adapter.parameters():
            parameter.mul_(torch.randn_like(parameter) * 3)
    model.save_pretrained(loop.folder / "runs" / "other")
    versions = sorted(path.name for path in (loop.repository / "projector").iterdir())
    done = loop.retrain(JUDGE, "--promote", "runs/first/repository")
    assert done.returncode == 3, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert not found["promote"]
    assert found["reason"].startswith("worse: ")  # by which figure depends on the pair
    assert found["promoted"] is None
    assert sorted(path.name for path in (loop.repository / "projector").iterdir()) == versions


@pytest.mark.xfail(
    reason="the generators of the fifth to seventh pair are too sure of their own sentences: 140 edits take the loss "
    "from 7.5 to 4.5 nats (fifth), and the decision still refuses the adapter (docs/quality.md, What bounds it); "
    "two and a half minutes, so it runs with --runxfail only",
    run=False,
)
def test_feedback_that_favours_a_style_changes_what_is_served_and_no_request_fails(loop: Loop) -> None:
    before = loop.texts()
    assert styled(before) < 0.05

    done = loop.retrain(TRAIN)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    better = {(figure["measure"], figure["rows"]) for figure in found["figures"] if figure["verdict"] == "better"}
    assert ("ce", "feedback") in better
    assert loop.texts() == before, "nothing is promoted without --promote"

    # Texts by prompt and model version, while the new adapter comes and while it goes again.
    answers: dict[tuple[str, str], set[str]] = defaultdict(set)
    stop = threading.Event()

    def ask(number: int) -> int:
        asked = 0
        with Client(loop.server.grpc_url, retries=0) as client:
            while not stop.is_set():
                prompt = loop.held_out[(number + asked) % 8]
                answer = client.optimize(prompt, max_length=TOKENS)
                answers[prompt, answer.model_version].add(answer.text)
                asked += 1
        return asked

    with ThreadPoolExecutor(CLIENTS) as clients:
        asking = [clients.submit(ask, number) for number in range(CLIENTS)]
        try:
            promoted = loop.retrain(PROMOTE)
            after = loop.texts()
            back = loop.run(ROLL_BACK)
            last = loop.texts()
        finally:
            stop.set()
        assert all(client.result() > 0 for client in asking), "each of them was answered, always"

    assert promoted.returncode == 0, promoted.stderr
    new = json.loads(promoted.stdout.splitlines()[-1])["promoted"]
    assert new["adapter"] == "default"
    assert styled(after) > 0.4, "of all texts, with those that the guard has given back"
    assert back.returncode == 0, back.stderr
    assert last == before
    assert len({version for _, version in answers}) == 2
    assert new["model_version"] in {version for _, version in answers}
    assert all(len(texts) == 1 for texts in answers.values()), "a text is of one version"
