"""Every way into the server, with clients nobody here wrote, gives the text that torch gives."""

import json
import re
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from neuro_latent_client import Client
from neuro_latent_core import protocol
from neuro_latent_serving.launch import FREE_PORTS, ServerConfig, TritonServer
from neuro_latent_serving.settings import GUARD_VARIABLE
from neuro_latent_trainer.model import PromptOptimizer
from tests.triton import wire

pytestmark = pytest.mark.server

PROMPT = "Create a function"
TOKENS = 64
FACTS = ("score", "generated_tokens", "finish_reason", "reason", "truncated", "adapter_version")


@pytest.fixture(scope="module")
def expected(oracle: PromptOptimizer) -> str:
    return oracle.generate([PROMPT], TOKENS)[0]


def test_both_ensembles_are_ready(server: TritonServer, client: Client) -> None:
    ready = {model.name for model in server.models}
    assert ready >= {protocol.UNARY_MODEL, protocol.STREAM_MODEL}
    health = client.health()
    assert (health.live, health.ready, health.problem) == (True, True, "")


@pytest.mark.parametrize("route", wire.ROUTES)
def test_every_route_gives_the_text_and_the_facts(
    server: TritonServer, repository: Path, expected: str, route: str
) -> None:
    answers = wire.ask(server, route, {"raw_prompt": PROMPT, "max_length": TOKENS})
    assert isinstance(answers, list), answers
    assert "".join(answer["enhanced_prompt"][0] for answer in answers) == expected
    assert [answer["finish_reason"][0] for answer in answers] == [*[""] * (len(answers) - 1), "length"]
    last = answers[-1]
    names = protocol.STREAM_OUTPUT_TYPES if "stream" in route else protocol.OUTPUT_TYPES
    assert set(last) >= set(names)
    assert (last["generated_tokens"], last["truncated"]) == ([TOKENS], [False])
    version = json.loads((repository / "manifest.json").read_text())["model_version"]
    assert last["adapter_version"] == [version]
    # Triton writes its own number over this output in generate's JSON.
    assert last["model_version"] == ["1" if "generate" in route else version]
    if "stream" in route:  # pieces that wait are joined, all of them where the reader is slow
        again = (wire.ask(server, route, {"raw_prompt": PROMPT, "max_length": TOKENS}) for _ in range(10))
        assert len(answers) > 1 or any(len(more) > 1 for more in again)
    else:
        assert len(answers) == 1


def test_infer_takes_and_gives_plain_json(server: TritonServer, expected: str) -> None:
    tensor = {"name": "raw_prompt", "datatype": "BYTES", "shape": [1, 1], "data": [PROMPT]}
    limit = {"name": "max_length", "datatype": "INT32", "shape": [1, 1], "data": [TOKENS]}
    path = f"/v2/models/{protocol.UNARY_MODEL}/infer"
    status, text = wire.post(server, path, {"id": "seven", "inputs": [tensor, limit]})
    assert status == 200
    answer = json.loads(text)
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert answer["id"] == "seven"
    assert outputs["enhanced_prompt"]["data"] == [expected]
    assert {name: output["datatype"] for name, output in outputs.items()} == protocol.OUTPUT_TYPES
    assert outputs["score"]["shape"] == [1, 1]


def test_curl_as_the_readme_has_it(server: TritonServer, oracle: PromptOptimizer) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    body = '{"raw_prompt":"Create a function","max_length":200,"num_return_sequences":1}'
    url = f"{server.http_address}/v2/models/neuro_latent_optimizer/generate"
    command = [curl, "-s", "--max-time", str(wire.TIMEOUT), "-d", body, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * wire.TIMEOUT, check=True)
    assert json.loads(done.stdout)["enhanced_prompt"] == oracle.generate([PROMPT], 200)[0]


@pytest.mark.parametrize("route", ["grpc infer", "http infer", "http generate"])
def test_the_rows_of_a_batch_equal_single_requests(
    server: TritonServer, oracle: PromptOptimizer, prompts: list[str], route: str
) -> None:
    lengths = [4 + row for row in range(8)]
    answers = wire.ask(server, route, {"raw_prompt": prompts[:8], "max_length": lengths})
    assert isinstance(answers, list), answers
    (answer,) = answers
    texts = [oracle.generate([prompt], length)[0] for prompt, length in zip(prompts, lengths, strict=False)]
    assert answer["enhanced_prompt"] == texts
    assert answer["generated_tokens"] == lengths
    assert answer["truncated"] == [False] * 8


def test_the_sequences_of_every_row_of_a_batch_come_back_in_order(
    server: TritonServer, grpc: Client, prompts: list[str]
) -> None:
    options = {"max_length": 8, "num_return_sequences": 2, "temperature": 0.8, "seed": 3}
    values = {"raw_prompt": prompts[:3], **{name: [value] * 3 for name, value in options.items()}}
    answers = wire.ask(server, "grpc infer", values)
    assert isinstance(answers, list), answers
    single = [s.text for prompt in prompts[:3] for s in grpc.optimize(prompt, **options).sequences]
    assert answers[0]["enhanced_prompt"] == single


def test_the_python_models_hold_no_torch(server: TritonServer) -> None:
    stubs = [p for p in psutil.Process(server.pid).children(recursive=True) if "stub" in p.name()]
    mapped = {stub.pid: {file.path for file in stub.memory_maps()} for stub in stubs}
    assert len(stubs) == 7
    assert sum(any("/onnxruntime/" in path for path in paths) for paths in mapped.values()) >= 4
    assert not [path for paths in mapped.values() for path in paths if "/torch/" in path or "/transformers/" in path]


def test_what_was_asked_before_is_answered_from_the_caches_on_every_route(repository: Path, expected: str) -> None:
    """The same text and facts, no step of the decoder, and a count at /metrics."""

    def metric(name: str) -> float:
        with urllib.request.urlopen(server.metrics_url) as answer:
            return sum(
                float(value) for value in re.findall(rf"^{name}{{.*}} (\S+)$", answer.read().decode(), re.MULTILINE)
            )

    with TritonServer(
        repository, ServerConfig(ports=FREE_PORTS, drain_timeout=1, environment={GUARD_VARIABLE: "off"})
    ) as server:
        asked = {"raw_prompt": PROMPT, "max_length": TOKENS}
        (first,) = wire.ask(server, "grpc infer", asked)
        assert first["cached"] == [False]
        time.sleep(2)  # the engine tells Triton its counters now and then
        steps, hits = metric("neuro_latent_steps_total"), metric("neuro_latent_cache_hits_total")
        for route in wire.ROUTES:
            answers = wire.ask(server, route, asked)
            assert "".join(answer["enhanced_prompt"][0] for answer in answers) == expected
            assert {name: answers[-1][name] for name in FACTS} == {name: first[name] for name in FACTS}
            assert answers[-1]["cached"] == [True]
        time.sleep(2)
        assert metric("neuro_latent_cache_hits_total") == hits + len(wire.ROUTES)
        assert metric("neuro_latent_steps_total") == steps
