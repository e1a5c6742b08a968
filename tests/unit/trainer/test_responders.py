"""Responders: a tiny causal model here, the same behind a server, the cache, tasks, figures, scores."""

import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import typer
from typer.testing import CliRunner

from neuro_latent_trainer import adapter_folder
from neuro_latent_trainer.data import read_records
from neuro_latent_trainer.evaluation.cli import evaluate
from neuro_latent_trainer.evaluation.evaluate import ADAPTER, SERVED, SHUFFLED
from neuro_latent_trainer.evaluation.responder_cli import score
from neuro_latent_trainer.evaluation.responses import RAW, Judge, _letter, verdict
from neuro_latent_trainer.evaluation.rivals import FILLER, enhanced_by_system
from neuro_latent_trainer.evaluation.scoring import ScoringError, adapter_samples, already, records
from neuro_latent_trainer.evaluation.tasks import Checker, Task, TaskError, read_tasks
from neuro_latent_trainer.model import PromptOptimizer
from neuro_latent_trainer.responders import ResponderError, open_responder
from neuro_latent_trainer.responders.local import LocalResponder
from neuro_latent_trainer.settings import EvaluationConfig, ScoringConfig
from tests.unit.trainer.openai_server import OpenAIServer, serving

pytestmark = pytest.mark.slow

app = typer.Typer()
app.command()(evaluate)
app.command()(score)

TASKS = [
    Task("Write a poem about rain", "Rain falls on the roof.", "No."),
    Task("Create a function", "def f(): pass", "I cannot."),
    Task("Explain how a bike works", "The pedals turn the wheel.", "Bikes are red."),
]


@pytest.fixture(scope="module")
def local(responder_folder: Path) -> LocalResponder:
    return LocalResponder(str(responder_folder))


@pytest.fixture
def server(local: LocalResponder) -> Iterator[OpenAIServer]:
    with serving(OpenAIServer(local)) as running:
        yield running


def test_a_likelihood_is_that_of_the_model(local: LocalResponder, responder_folder: Path) -> None:
    """By hand: the mean log-probability of the answer's tokens behind the prompt's."""
    (found,) = local.log_likelihoods([("Create a function", "def f")])
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(responder_folder)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(responder_folder)
    asked, said = (
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("Create a function\n\n", "def f")
    )
    with torch.no_grad():
        logprobs = model(torch.tensor([asked + said])).logits[0].log_softmax(-1)
    want = np.mean([logprobs[len(asked) + i - 1, token].item() for i, token in enumerate(said)])
    assert found == pytest.approx(want, abs=1e-5)


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResponderError, match="there is no such file"):
        open_responder(str(tmp_path / "missing.gguf"))
    with pytest.raises(ResponderError, match="cannot be loaded"):
        open_responder(str(tmp_path))


def test_a_server_says_what_the_model_says(server: OpenAIServer, local: LocalResponder) -> None:
    remote = open_responder("tiny", server.url, concurrency=3)
    server.failures = 1  # tried again
    pairs = [(task.prompt, task.good) for task in TASKS]
    assert remote.log_likelihoods(pairs) == pytest.approx(local.log_likelihoods(pairs))
    prompts = [task.prompt for task in TASKS]
    assert remote.answers(prompts, 5) == local.answers(prompts, 5)
    assert remote.usage.asked == 6
    assert remote.usage.cost((1.0, 2.0)) == pytest.approx((3 * 20 + 3 * 10 + 2 * (3 * 1 + 3 * 3)) / 1e6)


def test_a_server_that_tells_no_likelihoods(server: OpenAIServer) -> None:
    server.echoes = False
    with pytest.raises(ResponderError, match="tells no likelihoods"):
        open_responder("tiny", server.url).log_likelihoods([("a", "b")])


def test_a_server_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuro_latent_trainer.responders.remote.RETRIES", 0)
    with pytest.raises(ResponderError, match="does not answer"):
        open_responder("tiny", "http://127.0.0.1:9/v1").answers(["a"], 5)


def test_the_cache_asks_nothing_twice(server: OpenAIServer, tmp_path: Path) -> None:
    cache = tmp_path / "responses.sqlite"
    pairs = [(task.prompt, task.good) for task in TASKS]
    first = open_responder("tiny", server.url, cache=cache)
    want = first.log_likelihoods([*pairs, pairs[0]])
    assert len(server.requests) == 3
    again = open_responder("tiny", server.url, cache=cache)
    assert again.log_likelihoods([*pairs, pairs[0]]) == want
    assert len(server.requests) == 3
    assert (again.usage.asked, again.usage.cached) == (0, 4)
    open_responder("another", server.url, cache=cache).log_likelihoods(pairs)
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2"),
        ('["a"]', "a task is a JSON object"),
        ('{"prompt": " "}', "prompt is missing or blank"),
        ('{"prompt": 3}', "prompt must be a string"),
        ('{"prompt": "a", "bad": "b"}', "bad stands without a good answer"),
        ('{"prompt": "a", "checks": ["b"]}', "checks must be a list"),
        ('{"prompt": "a", "checks": [{"id": "b", "kwargs": "c"}]}', "checks must be a list"),
        ('{"prompt": "a", "good": "b", "checks": [{"id": "c"}]}', "a good answer or checks, not both"),
    ],
)
def test_lines_that_are_no_tasks(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"prompt": "a", "good": "b"}\n' + line + "\n")
    with pytest.raises(TaskError, match=message):
        read_tasks(path)
    path.write_text("\n")
    with pytest.raises(TaskError, match="holds no task"):
        read_tasks(path)


def test_nothing_added_is_exactly_nothing(local: LocalResponder) -> None:
    systems = {"nothing": [task.prompt for task in TASKS], "rubbish": ["zzz qqq"] * len(TASKS)}
    figures = Judge(local).figures(TASKS, systems)
    assert figures["likelihood_gain"]["nothing"] == [0, 0, 0]
    assert figures["margin_gain"]["nothing"] == [0, 0, 0]
    assert figures["added"] == {RAW: [0, 0, 0], "nothing": [0, 0, 0], "rubbish": [1, 1, 1]}
    assert figures["good_above_bad"]["nothing"] == figures["good_above_bad"][RAW]


@pytest.mark.parametrize(
    ("interval", "word"),
    [
        ([0.02, 0.01, 0.03], "helps"),
        ([-0.02, -0.03, -0.01], "does no harm"),
        ([-0.3, -0.4, -0.2], "harms"),
        ([-0.04, -0.12, 0.02], "unclear"),
    ],
)
def test_verdicts(interval: list[float], word: str) -> None:
    found = {"likelihood_gain": {"x": interval}, "rows": {"likelihood_gain": 40}}
    value, low, high = (f"{figure:.3f}" for figure in interval)
    assert verdict(found, "x") == f"{word} (likelihood gain {value}, {low} to {high}, of 40 tasks)"
    few = {**found, "rows": {"likelihood_gain": 9}}
    assert verdict(few, "x").startswith("unclear (")


class Scripted:
    """A responder whose answers and verdicts are written down."""

    identity = "scripted"

    def __init__(self, local: LocalResponder, prefers: str) -> None:
        self.usage, self._prefers = local.usage, prefers

    def answers(self, prompts: Any, most_tokens: int, stage: str = "") -> list[str]:
        return [self._answer(prompt) for prompt in prompts]

    def log_likelihoods(self, pairs: Any, stage: str = "") -> list[float]:
        raise AssertionError("no task has a good answer")

    def _answer(self, prompt: str) -> str:
        if not prompt.startswith("Two assistants"):
            return f"{prompt}!"
        first = prompt.split("Answer A:\n")[1].split("\n\nAnswer B:")[0]
        return {"first": "A", "long": "A" if "long" in first else "B"}[self._prefers]


def test_answers_are_compared_in_both_orders(local: LocalResponder) -> None:
    tasks = [Task("a"), Task("b")]
    systems = {"long": ["a long", "b long"], "same": ["a", "b"]}
    fair = Judge(Scripted(local, "long")).figures(tasks, systems)
    assert fair["wins_gain"]["long"] == [1, 1, 1]
    assert fair["wins_gain"]["same"] == [0, 0, 0]
    assert "long" not in fair["wins_gain_at_like_length"]
    biased = Judge(Scripted(local, "first")).figures(tasks, systems)
    assert biased["wins_gain"]["long"] == [0, 0, 0]
    assert biased["orders_agree"]["long"] == [0, 0, 0]
    assert list(Judge(Scripted(local, "long")).gains(tasks, systems["long"])) == [1, 1]


def test_the_systems_and_their_controls(optimizer: PromptOptimizer) -> None:
    prompts = [task.prompt for task in TASKS]
    systems = enhanced_by_system(optimizer, prompts, (), EvaluationConfig(max_length=12))
    assert set(systems) >= {SERVED, ADAPTER}
    if optimizer.adapter.config.form == "complement":
        for name in (SERVED, ADAPTER, SHUFFLED, FILLER):
            assert all(text.startswith(prompt) for text, prompt in zip(systems[name], prompts, strict=True))
        words = [[len(text.split()) for text in systems[name]] for name in (SERVED, FILLER)]
        assert words[0] == words[1]


def test_scores_become_training_data(optimizer: PromptOptimizer, local: LocalResponder, tmp_path: Path) -> None:
    config = ScoringConfig(samples=3, max_length=10, margin=0.0)
    found = list(records(Judge(local), TASKS, [adapter_samples(optimizer, config)], config))
    assert [record["raw_prompt"] for record in found] == [task.prompt for task in TASKS]
    for record in found:
        gains = [one["gain"] for one in record["candidates"]]
        assert gains == sorted(gains, reverse=True)
        better = bool(gains) and gains[0] > 0
        assert record["enhanced_prompt"] == (
            record["candidates"][0]["enhanced_prompt"] if better else record["raw_prompt"]
        )
        assert record["failed_prompts"] == [
            one["enhanced_prompt"] for one in reversed(record["candidates"]) if one["gain"] < 0
        ]
    path = tmp_path / "scored.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in found))
    read = read_records(path)
    assert not read.bad_rows
    assert [record.enhanced_prompt for record in read.records] == [record["enhanced_prompt"] for record in found]


def test_a_file_of_scores_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "scored.jsonl"
    assert already(path) == set()
    record = json.dumps({"raw_prompt": "a\u2028b", "candidates": []}, ensure_ascii=False) + "\n"
    path.write_text(record + '{"raw_pro')
    assert already(path) == {"a\u2028b"}
    assert path.read_text() == record


@pytest.mark.parametrize("text", ['{"prompt": "a"}\n{"prompt": "b"}', '{"prompt": "a"}\n', "no JSON"])
def test_another_file_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(text)
    with pytest.raises(ScoringError, match="no record"):
        already(path)
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("said", "value"),
    [("A", 1), ("**B**", -1), ("Answer B is better", -1), ("option a", 1), ("Both are equal", 0), ("T", 0), ("", 0)],
)
def test_what_a_judge_says(said: str, value: float) -> None:
    assert _letter(said) == value


def test_what_cannot_be_a_cache_or_an_address(tmp_path: Path, responder_folder: Path) -> None:
    (tmp_path / "file").write_text("no database, and long enough to be looked at as one" * 100)
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(ResponderError, match="cannot be used"):
            open_responder(str(responder_folder), cache=path)
    for url in ("localhost:8000", "http://localhost:x/v1"):
        with pytest.raises(ResponderError, match="--responder-url"):
            open_responder("tiny", url)


def test_the_commands(adapter: Path, responder_folder: Path, tmp_path: Path) -> None:
    tasks, scored = tmp_path / "tasks.jsonl", tmp_path / "scored.jsonl"
    tasks.write_text("".join(json.dumps({"prompt": t.prompt, "good": t.good, "bad": t.bad}) + "\n" for t in TASKS))
    common = ["--responder", str(responder_folder), "--responder-cache", str(tmp_path / "cache.sqlite")]
    report = tmp_path / "tasks.html"
    command = ["evaluate", "--adapter", str(adapter), "--tasks", str(tasks), "--report", str(report)]
    done = CliRunner().invoke(app, [*command, *common, "--json"])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["tasks"] == 3
    assert set(figures["verdict"]) >= {SERVED, ADAPTER}
    assert len(figures["likelihood_gain"][SERVED]) == 3
    assert (figures["data"], figures["adapter_version"]) == ("tasks.jsonl", adapter_folder.version(adapter))
    page = report.read_text()
    for text in (figures["verdict"][SERVED], figures["responder"], figures["date"], "How much likelier", "http"):
        assert (text in page) == (text != "http")
    command = ["score", "--adapter", str(adapter), "--prompts", str(tasks), "--output", str(scored), *common]
    for left in (3, 0):
        done = CliRunner().invoke(app, [*command, "--samples", "2"])
        assert done.exit_code == 0, done.output
        assert f"{left} prompts in" in done.stderr
        assert len(scored.read_text().splitlines()) == 3


class _NoComma:
    """As IFEval's instructions are."""

    def __init__(self, name: str) -> None:
        self.name = name

    def build_description(self, most: int = 0) -> None:
        self.most = most

    def get_instruction_args(self) -> None: ...

    def check_following(self, answer: str) -> bool:
        if self.name == "needs_data":
            raise LookupError("Resource punkt_tab not found")
        return answer.count(",") <= self.most


@pytest.fixture
def ifeval(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "lm_eval.tasks.ifeval.instructions_registry"
    registry = types.ModuleType(name)
    registry.INSTRUCTION_DICT = {"no_comma": _NoComma, "needs_data": _NoComma}  # type: ignore[attr-defined]
    for package in ("lm_eval", "lm_eval.tasks", "lm_eval.tasks.ifeval"):
        monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    monkeypatch.setitem(sys.modules, name, registry)


@pytest.mark.usefixtures("ifeval")
def test_checks_are_met_or_not() -> None:
    both = ({"id": "no_comma", "kwargs": {}}, {"id": "no_comma", "kwargs": {"most": 1, "least": None}})
    task = Task("Write", checks=both)
    checker = Checker()
    checker.check([task])
    assert [checker.met(task, answer) for answer in ("a", "a, b", "a, b, c", " ")] == [1, 0.5, 0, 0]


@pytest.mark.usefixtures("ifeval")
@pytest.mark.parametrize(
    ("check", "message"),
    [
        ({"id": "no_such"}, "there is no check 'no_such'; known are needs_data, no_comma"),
        ({"id": "no_comma", "kwargs": {"more": 1}}, "does not take kwargs"),
        ({"id": "needs_data"}, "nltk.downloader punkt_tab"),
    ],
)
def test_checks_that_cannot_be_made_are_told_before_anybody_is_asked(check: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        Checker().check([Task("Write", checks=(check,))])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["evaluate", "--adapter", "A", "--data", "D", "--tasks", "T"], "not both"),
        (["evaluate", "--adapter", "A", "--tasks", "T", "--preferences", "P"], "--tasks takes one --adapter"),
        (["score", "--prompts", "T", "--output", "O"], "nothing makes candidates"),
        (
            ["score", "--prompts", "T", "--output", "O", "--concurrency", "0"],
            "concurrency must be at least 1 and at most",
        ),
        (["evaluate", "--adapter", "A", "--tasks", "T", "--answer-tokens", "0"], "answer_tokens must be at least 1"),
        (["score", "--prompts", "T", "--output", "O", "--candidates", "C", "--train", "D"], "--train needs --adapter"),
    ],
)
def test_wrong_usage(options: list[str], message: str) -> None:
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 2
    assert message in done.stderr
