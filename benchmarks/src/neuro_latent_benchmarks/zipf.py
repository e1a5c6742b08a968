"""Prompts that repeat, as they do in real traffic: what a server's caches give."""

import random
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path
from typing import Any

from neuro_latent_benchmarks import report
from neuro_latent_benchmarks.load import Job, LoadProcess
from neuro_latent_benchmarks.prompts import prompt_texts
from neuro_latent_benchmarks.statistics import Spread, percentile
from neuro_latent_client import Client
from neuro_latent_serving.launch import FREE_PORTS, ServerConfig, TritonServer
from neuro_latent_serving.settings import CACHE_MB, CACHE_VARIABLE

PROMPTS = 1000
COMPARED = 30
CLIENTS = 8
SEED = 7


def zipf_texts(count: int, seed: int) -> list[str]:
    """``count`` of a thousand prompts; the one of rank r is asked with a chance of 1/r (Zipf, s = 1)."""
    texts = prompt_texts(PROMPTS)
    different = [text if texts.index(text) == rank else f"{text} ({rank})" for rank, text in enumerate(texts)]
    weights = list(accumulate(1 / (rank + 1) for rank in range(PROMPTS)))
    return random.Random(seed).choices(different, cum_weights=weights, k=count)


def measure(repository: Path, max_length: int, rounds: int, requests: int) -> dict[str, Any]:
    """Requests a second without and with caches, from eight clients, in turns.

    Returns:
        without, with: spreads of the rounds; ``ratio``: of their medians; ``same_answers``: whether both wrote the same
        texts, asked twice.
    """
    rates: dict[str, list[float]] = {"0": [], str(CACHE_MB): []}
    with ExitStack() as stack:
        loads, clients = {}, []
        for size in rates:
            report.progress(f"  starting Triton with caches of {size} MB")
            config = ServerConfig(ports=FREE_PORTS, drain_timeout=3, environment={CACHE_VARIABLE: size})
            server = stack.enter_context(TritonServer(repository, config))
            loads[size] = stack.enter_context(LoadProcess(server.grpc_url))
            clients.append(stack.enter_context(Client(server.grpc_url)))
        for number in range(rounds):
            jobs: Sequence[Job] = [(text, max_length) for text in zipf_texts(requests, SEED + number)]
            for size, load in loads.items():
                report.progress(f"  {requests} prompts of {PROMPTS} by Zipf's law, caches of {size} MB")
                run = load.closed(jobs, clients=CLIENTS)
                rates[size].append(len(run.good) / run.seconds)
        asked = [text for text in zipf_texts(COMPARED, SEED) for _ in range(2)]
        without, cached = ([client.optimize(text, max_length=max_length).text for text in asked] for client in clients)
    medians = [percentile(values, 50) for values in rates.values()]
    return {
        "without": Spread.of(rates["0"]).as_json(),
        "with": Spread.of(rates[str(CACHE_MB)]).as_json(),
        "ratio": round(medians[1] / medians[0], 3),
        "same_answers": without == cached,
    }
