"""The complement form on a real server, beside the rewrite form.

What is written stands behind the prompt, which is kept byte for byte; the gate and the guard withhold; a stream is the
unary answer in pieces.
"""

import shutil
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from neuro_latent_client import Client
from neuro_latent_core.form import SEPARATOR
from neuro_latent_export.repository import export_adapter
from neuro_latent_serving.adapters.adapter_store import AdapterStore
from neuro_latent_serving.launch import FREE_PORTS, ServerConfig, TritonServer
from neuro_latent_serving.settings import MIN_CONFIDENCE_VARIABLE
from neuro_latent_trainer import adapter_folder
from neuro_latent_trainer.gate import Gate
from neuro_latent_trainer.model import MAX_SOURCE_TOKENS, PromptOptimizer
from tests import tiny
from tests.triton import wire
from tests.triton.conftest import through_gateway

pytestmark = pytest.mark.server

TOKENS = 12
PROMPTS = {
    "one line": "Create a function",
    "two lines of Windows": "Create a function\r\nthat sorts\r\n",
    "white space at both ends": " \t Create a function  \n\n ",
    "a code fence": "Explain this:\n```py\nx = {'a': 1}\n```",
    "the separator": f"Create{SEPARATOR}a function{SEPARATOR}",
    "composed characters": "Cre\u0301ate a fu\u0301nction \U0001f600\u200d\U0001f525 \ufeff",
    "control tokens": "Say </s> and <extra_id_0><pad>",
    "the longest": ("Create a function that sorts. " * 1200)[:32768],
}


def exported(root: Path, pair: Any, gate: tuple[float, float, float] | None = None) -> tuple[Path, PromptOptimizer]:
    """An adapter of the complement form, with a gate of this bias, weight and threshold."""
    trained = tiny.write_adapter(root / "adapter", pair.encoder, pair.generator, seed=7, form="complement")
    model = PromptOptimizer.from_pretrained(trained)
    if gate is not None:
        adapter, width = model.adapter, model.encoder.width
        adapter.gate = Gate(torch.randn(4, width), torch.zeros(4), torch.randn(2, width))
        for name, value in zip(("bias", "logprob_weight", "threshold"), gate, strict=True):
            getattr(adapter.gate, name).fill_(value)
        shutil.rmtree(trained)
        names = (adapter_folder.BackboneName(str(pair.encoder)), adapter_folder.BackboneName(str(pair.generator)))
        adapter_folder.write(trained, adapter, *names, {}, "a random adapter for tests\n")
        model = PromptOptimizer.from_pretrained(trained)
    export_adapter(trained, root / "exported")
    return root / "exported", model


@pytest.fixture(scope="module")
def models(pair: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, PromptOptimizer]]:
    root = tmp_path_factory.mktemp("adapters")
    return {
        "complement": exported(root / "complement", pair),
        "unsure": exported(root / "unsure", pair, (0.5, 0.25, 0.99)),
    }


@pytest.fixture(scope="module")
def both(repository: Path, models: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared repository, whose default adapter rewrites, with two adapters of the complement form."""
    folder = tmp_path_factory.mktemp("both") / "repository"
    shutil.copytree(repository, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name, (files, _) in models.items():
        AdapterStore(folder).add(name, files)
    return folder


@pytest.fixture(scope="module")
def server(both: Path) -> Iterator[TritonServer]:
    with TritonServer(both, ServerConfig(ports=FREE_PORTS, drain_timeout=1, environment=wire.PLAIN)) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(both: Path) -> Iterator[TritonServer]:
    environment = {MIN_CONFIDENCE_VARIABLE: "0.25"}
    with TritonServer(both, ServerConfig(ports=FREE_PORTS, drain_timeout=1, environment=environment)) as running:
        yield running


@pytest.fixture(scope="module")
def grpc(server: TritonServer) -> Iterator[Client]:
    with Client(server.grpc_url, timeout=wire.TIMEOUT) as client:
        yield client


@pytest.fixture(scope="module")
def http(server: TritonServer) -> Iterator[Client]:
    with Client(server.http_url, timeout=wire.TIMEOUT) as client:
        yield client


@pytest.fixture(scope="module")
def rest(server: TritonServer) -> Iterator[Client]:
    with through_gateway(server) as client:
        yield client


def one(answers: Any) -> dict[str, Any]:
    assert not isinstance(answers, wire.Refusal), answers
    (answer,) = answers
    return {name: values[0] for name, values in answer.items()}


@pytest.mark.parametrize("route", wire.ROUTES)
@pytest.mark.parametrize("name", PROMPTS)
def test_the_answer_begins_with_the_prompt_byte_for_byte(
    server: TritonServer, models: Any, name: str, route: str
) -> None:
    raw, model = PROMPTS[name], models["complement"][1]
    answers = wire.ask(server, route, {"raw_prompt": raw, "max_length": TOKENS, "adapter": "complement"})
    assert not isinstance(answers, wire.Refusal), answers
    if route.endswith("stream"):
        assert answers[0]["enhanced_prompt"] in ([raw], [raw + SEPARATOR + answers[-1]["added"][0]])
        assert not any(answer["added"][0] or answer["finish_reason"][0] for answer in answers[:-1])
    whole = "".join(answer["enhanced_prompt"][0] for answer in answers)
    (written,) = model.write([raw], TOKENS)
    assert answers[-1]["added"] == [written]
    assert whole.encode() == f"{raw}{SEPARATOR}{written}".encode()
    assert answers[-1]["finish_reason"][0] in ("stop", "length")
    assert answers[-1]["reason"] == [""]
    if name in ("one line", "the longest"):
        assert bool(answers[-1]["truncated"][0]) == (name == "the longest")


def test_the_score_is_the_confidence_of_torch(client: Client, models: Any, prompts: list[str]) -> None:
    model = models["unsure"][1]
    for prompt in prompts[:4]:
        tokens = model.generator.tokenize([prompt], MAX_SOURCE_TOKENS)
        embedding = model.embed([prompt])
        with torch.no_grad():
            hidden, mask = model.encode(embedding, tokens["input_ids"], tokens["attention_mask"])
            labels = torch.tensor(model.generate_ids([prompt], TOKENS))
            logprobs = model.generator.logits(hidden, mask, labels).log_softmax(-1).gather(2, labels[..., None])
            confidence = model.adapter.confidence(embedding, logprobs.mean(dim=(1, 2))).item()
        answer = client.optimize(prompt, max_length=TOKENS, adapter="unsure", min_confidence=0.0)
        assert answer.generated_tokens == TOKENS == labels.shape[1], "no end token to count"
        assert answer.score == pytest.approx(confidence, abs=1e-5)


@pytest.mark.parametrize("streamed", [False, True])
def test_the_gate_withholds_by_the_adapters_threshold_and_a_request_may_say_otherwise(
    client: Client, streamed: bool
) -> None:
    raw = PROMPTS["white space at both ends"]

    def ask(**options: Any) -> Any:
        if not streamed:
            return client.optimize(raw, max_length=TOKENS, adapter="unsure", **options)
        with client.stream(raw, max_length=TOKENS, adapter="unsure", **options) as stream:
            pieces = [piece.text for piece in stream]
        assert "".join(pieces) == stream.result.text
        return stream.result

    withheld, served, as_sure = ask(), ask(min_confidence=0.0), ask(min_confidence=1.0)
    assert (withheld.text, withheld.added) == (raw, "")
    assert (withheld.finish_reason, withheld.reason) == ("withheld", "not sure enough")
    assert withheld.generated_tokens > 0
    assert served.text == raw + SEPARATOR + served.added
    assert served.score == withheld.score == as_sure.score
    assert (as_sure.finish_reason, as_sure.text) == ("withheld", raw)
    assert ask(min_confidence=served.score - 0.01).added == served.added


@pytest.mark.parametrize("route", wire.ROUTES)
@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_a_confidence_out_of_range_is_refused(server: TritonServer, route: str, value: float) -> None:
    answer = wire.ask(server, route, {"raw_prompt": "Create a function", "min_confidence": value})
    assert isinstance(answer, wire.Refusal), answer
    if value == value or "generate" not in route:  # NaN is no JSON
        assert "min_confidence must be between 0 and 1" in answer.text


def test_a_deadline_that_is_over_at_once_gives_the_prompt(grpc: Client) -> None:
    raw = PROMPTS["the longest"]
    for name in ("complement", "default"):
        answer = grpc.optimize(raw, adapter=name, deadline_ms=1)
        assert answer.finish_reason == "deadline"
        if answer.generated_tokens == 0:
            assert (answer.text, answer.added, answer.score) == (raw, "", 0.0)
        with grpc.stream(raw, adapter=name, deadline_ms=1) as stream:
            assert "".join(piece.text for piece in stream) == stream.result.text


@pytest.mark.parametrize("options", [{"num_beams": 4}, {"num_beams": 4, "num_return_sequences": 3}])
def test_beams_write_complements(grpc: Client, http: Client, models: Any, options: dict[str, int]) -> None:
    raw, n = PROMPTS["two lines of Windows"], options.get("num_return_sequences", 1)
    written = models["complement"][1].write([raw], TOKENS, **options)
    for client in (grpc, http):
        answer = client.optimize(raw, max_length=TOKENS, adapter="complement", **options)
        assert [s.added for s in answer.sequences] == written
        with client.stream(raw, max_length=TOKENS, adapter="complement", **options) as stream:
            pieces = list(stream)
        for index, sequence in enumerate(stream.result.sequences):
            mine = [piece.text for piece in pieces if piece.sequence_index == index]
            assert mine[0].startswith(raw)
            assert "".join(mine) == sequence.text == raw + SEPARATOR + written[index]
    assert len(written) == n


def test_an_empty_complement_leaves_the_prompt_unchanged(grpc: Client) -> None:
    raw = PROMPTS["a code fence"]
    options = {"max_length": 1, "adapter": "unsure", "temperature": 20.0, "num_return_sequences": 8}
    for seed in range(200):
        answer = grpc.optimize(raw, seed=seed, **options)
        empty = [s for s in answer.sequences if s.finish_reason == "unchanged"]
        if empty:
            assert (empty[0].text, empty[0].added, empty[0].reason) == (raw, "", "")
            assert (empty[0].generated_tokens, 0 < empty[0].score < 1) == (0, True)
            with grpc.stream(raw, seed=seed, **options) as stream:
                list(stream)
            assert stream.result.sequences == answer.sequences
            return
    raise AssertionError("the end token was never drawn first")


def test_both_forms_decode_together(grpc: Client, models: Any, oracle: PromptOptimizer) -> None:
    raws = [f"Create a function number {number}" for number in range(12)]
    rewrites, complements = oracle.generate(raws, TOKENS), models["complement"][1].generate(raws, TOKENS)
    with ThreadPoolExecutor(12) as pool:
        for name, expected in (("default", rewrites), ("complement", complements)) * 2:
            texts = [pool.submit(grpc.optimize, raw, max_length=TOKENS, adapter=name) for raw in raws]
            assert [text.result().text for text in texts] == expected


@pytest.mark.parametrize("route", ["grpc infer", "http infer"])
def test_the_rows_of_a_batch_may_have_different_forms(
    server: TritonServer, models: Any, oracle: Any, route: str
) -> None:
    raw = ["Create a function", "Write a poem\r\n"]
    (answer,) = wire.ask(server, route, {"raw_prompt": raw, "max_length": [8, 8], "adapter": ["complement", "default"]})
    (written,), (rewritten,) = models["complement"][1].write(raw[:1], 8), oracle.generate(raw[1:], 8)
    assert answer["enhanced_prompt"] == [raw[0] + SEPARATOR + written, rewritten]
    assert answer["added"] == [written, ""]


# With the guard on ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", wire.ROUTES)
def test_the_guard_withholds_what_breaks_a_rule(guarded: TritonServer, route: str) -> None:
    for adapter in ("complement", "default"):
        answers = wire.ask(
            guarded, route, {"raw_prompt": PROMPTS["a code fence"], "max_length": TOKENS, "adapter": adapter}
        )
        assert not isinstance(answers, wire.Refusal), answers
        assert "".join(answer["enhanced_prompt"][0] for answer in answers) == PROMPTS["a code fence"]
        assert answers[-1]["finish_reason"] == ["withheld"]
        assert answers[-1]["reason"][0]
        assert PROMPTS["a code fence"] not in answers[-1]["reason"][0]


@pytest.mark.parametrize("route", wire.ROUTES)
def test_a_prompt_in_another_language_comes_back_unchanged_without_a_decode(guarded: TritonServer, route: str) -> None:
    raw = "Schreibe bitte eine kurze Geschichte über den Hund und die Katze."
    answers = wire.ask(guarded, route, {"raw_prompt": raw, "adapter": "complement"})
    answer = one(answers)
    assert (answer["enhanced_prompt"], answer["added"], answer["generated_tokens"]) == (raw, "", 0)
    assert (answer["finish_reason"], answer["reason"]) == ("withheld", "another language")


def test_the_servers_least_confidence_stands_in_for_the_adapters(guarded: TritonServer, grpc: Client) -> None:
    raw = PROMPTS["one line"]
    sure = grpc.optimize(raw, max_length=TOKENS, adapter="unsure", min_confidence=0.0).score
    with Client(guarded.grpc_url, timeout=wire.TIMEOUT) as client:
        by_server = client.optimize(raw, max_length=TOKENS, adapter="unsure")
        by_request = client.optimize(raw, max_length=TOKENS, adapter="unsure", min_confidence=0.99)
    assert (by_server.reason == "not sure enough") == (sure < 0.25)
    assert by_request.reason == "not sure enough"


def test_metrics_count_what_was_withheld(guarded: TritonServer) -> None:
    time.sleep(1.2)
    with urllib.request.urlopen(guarded.metrics_url, timeout=wire.TIMEOUT) as response:
        text = response.read().decode()
    counts = {line.split("{")[0]: float(line.split()[-1]) for line in text.splitlines() if line.startswith("neuro_l")}
    assert counts["neuro_latent_withheld_by_gate_total"] >= 1
    assert counts["neuro_latent_withheld_by_guard_total"] >= 1
    assert "neuro_latent_unchanged_total" in counts
    assert "neuro_latent_fallbacks_total" not in counts
