"""The engine behind a real Triton: its searches, its metrics, and what is left after it has died or has worked long."""

import re
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import torch
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from neuro_latent_benchmarks import trace
from neuro_latent_client import Client, NeuroLatentError
from neuro_latent_serving.launch import FREE_PORTS, ServerConfig, ServerEndedError, TritonServer
from neuro_latent_trainer.model import MAX_SOURCE_TOKENS, PromptOptimizer
from tests.triton import wire

pytestmark = pytest.mark.server

TOKENS = 24
MANY = 10_000
CLIENTS = 16


@torch.no_grad()
def beams_of_torch(oracle: PromptOptimizer, prompt: str, beams: int, wanted: int, penalty: float) -> list[str]:
    tokens = oracle.generator.tokenize([prompt], MAX_SOURCE_TOKENS)
    hidden, mask = oracle.encode(oracle.embed([prompt]), tokens["input_ids"], tokens["attention_mask"])
    rows = oracle.generator_model.generate(
        encoder_outputs=BaseModelOutput(last_hidden_state=hidden),
        attention_mask=mask,
        max_new_tokens=TOKENS,
        num_beams=beams,
        num_return_sequences=wanted,
        length_penalty=penalty,
        early_stopping=False,
        do_sample=False,
        past_key_values=EncoderDecoderCache(DynamicCache(), DynamicCache()),
    )
    return [text.strip() for text in oracle.generator.tokenizer.batch_decode(rows, skip_special_tokens=True)]


@pytest.mark.parametrize(("beams", "wanted", "penalty"), [(2, 1, 1.0), (4, 3, 0.5), (8, 8, 2.0)])
def test_beams_equal_torch(
    client: Client, oracle: PromptOptimizer, prompts: list[str], beams: int, wanted: int, penalty: float
) -> None:
    for prompt in prompts[:6]:
        answer = client.optimize(
            prompt, max_length=TOKENS, num_beams=beams, num_return_sequences=wanted, length_penalty=penalty
        )
        assert [sequence.text for sequence in answer.sequences] == beams_of_torch(
            oracle, prompt, beams, wanted, penalty
        )


def metrics(server: TritonServer) -> dict[str, float]:
    text = urllib.request.urlopen(server.metrics_url, timeout=10).read().decode()
    found = re.findall(r"^neuro_latent_(\w+)\{[^}]*\} (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def test_the_engines_counters_are_metrics_of_triton(server: TritonServer, grpc: Client, prompts: list[str]) -> None:
    time.sleep(1.5)  # they are told twice a second
    before = metrics(server)
    written = [grpc.optimize(prompt, max_length=TOKENS) for prompt in prompts[:4]]
    time.sleep(1.5)
    after = metrics(server)
    grown = {name: after[name] - before[name] for name in after}
    least = sum(answer.sequences[0].generated_tokens for answer in written)
    assert least <= grown["tokens_total"] <= least + len(written)  # the end token of each counts too
    assert grown["requests_started_total"] == grown["time_to_first_token_seconds_count"] == 4
    assert 0 < grown["steps_total"] <= grown["tokens_total"]
    assert grown["step_seconds_total"] > 0
    assert grown["accepted_draft_tokens_total"] <= grown["draft_tokens_total"]
    assert after["slots"] == 16
    assert after["slots_in_use"] == after["queue_length"] == 0
    assert {
        "tokens_per_step",
        "draft_acceptance",
        "requests_refused_total",
        "unchanged_total",
        "withheld_by_gate_total",
    } <= after.keys()


def test_bench_trace_finds_where_the_time_of_a_request_goes(server: TritonServer) -> None:
    for found in trace.measure(server, trace.TraceConfig().quick()):
        times = {part["part"]: part["ms"] for part in found["parts"]}
        times.pop("gateway")
        assert sum(times.values()) == pytest.approx(found["mean_ms"], abs=0.1)
        assert min(times[part] for part in ("tokenizer", "encoder", "t5_encoder", "prefill", "steps")) > 0


def test_many_requests_leave_nothing_behind(server: TritonServer, prompts: list[str]) -> None:
    def rest() -> tuple[float, int, int, int]:
        processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        return (
            sum(process.memory_info().rss for process in processes) / 2**20,
            sum(process.num_fds() for process in processes),
            sum(process.num_threads() for process in processes),
            sum(1 for _ in Path("/dev/shm").iterdir()),
        )

    with Client(server.grpc_url, timeout=wire.TIMEOUT) as client, ThreadPoolExecutor(CLIENTS) as pool:

        def ask(number: int) -> int:
            options = {"max_length": 1 + number % 3}
            if number % 10 == 0:
                with client.stream(prompts[number % len(prompts)], **options) as stream:
                    return sum(1 for _ in stream)
            return len(client.optimize(prompts[number % len(prompts)], **options).text)

        assert all(pool.map(ask, range(MANY // 5)))  # buffers reach their sizes
        before = rest()
        assert all(pool.map(ask, range(MANY - MANY // 5)))
        after = rest()
    assert after[0] - before[0] < 30, "MiB of memory"
    assert after[1] - before[1] <= 20, "open files"
    assert after[2] - before[2] <= 20, "threads"
    assert after[3] == before[3], "shared memory"


@pytest.fixture
def doomed(repository: Path) -> Iterator[TritonServer]:
    with TritonServer(
        repository, ServerConfig(ports=FREE_PORTS, drain_timeout=1, kill_after=1, environment=wire.PLAIN)
    ) as running:
        yield running


def watch(server: TritonServer) -> None:
    """As ``neuro-latent serve`` does."""
    deadline = time.monotonic() + wire.TIMEOUT
    while time.monotonic() < deadline:
        server.check()
        time.sleep(0.05)


@pytest.mark.parametrize("model", ["t5_decoder", "encoder"])
def test_a_killed_model_leaves_nobody_waiting_and_the_server_can_be_started_again(
    doomed: TritonServer, prompts: list[str], model: str
) -> None:
    outcomes: list[Exception | None] = []
    began = threading.Semaphore(0)

    def ask(number: int) -> None:
        try:
            with Client([doomed.grpc_url, doomed.http_url][number % 2], timeout=wire.TIMEOUT) as client:
                while True:
                    if number % 4 < 2:
                        with client.stream(prompts[number], max_length=512, temperature=5.0) as stream:
                            next(stream)
                            began.release()
                            for _piece in stream:
                                pass
                    else:
                        began.release()
                        client.optimize(prompts[number], max_length=512, temperature=5.0)
        except Exception as error:
            outcomes.append(error)

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(8)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert began.acquire(timeout=wire.TIMEOUT)
    wire.stub(doomed, model).kill()
    for thread in threads:
        thread.join(wire.TIMEOUT / 2)
        assert not thread.is_alive(), "a request hangs"
    assert len(outcomes) == len(threads)
    assert all(isinstance(outcome, NeuroLatentError) for outcome in outcomes), outcomes
    with pytest.raises(ServerEndedError, match="ended by itself"):
        watch(doomed)
    with doomed.successor() as again, Client(again.grpc_url, timeout=wire.TIMEOUT) as client:
        assert again.ports == doomed.ports
        assert client.optimize(prompts[0], max_length=4).text
