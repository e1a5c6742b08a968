"""``neuro-latent bench trace``: where a request's time goes, from the client through Triton and the engine and back.

Triton counts nanoseconds of each model (``/v2/models/stats``), the engine seconds of its own parts (``/metrics``); both
are read before and after many requests. What lies between the client's clock and Triton's is transport.
"""

import json
import os
import time
import urllib.request
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from neuro_latent_benchmarks import metrics, report
from neuro_latent_benchmarks.load import Job, LoadProcess, LoadRun
from neuro_latent_benchmarks.prompts import prompt_texts
from neuro_latent_benchmarks.report import BenchError
from neuro_latent_benchmarks.statistics import percentile, significant
from neuro_latent_core.protocol import UNARY_MODEL
from neuro_latent_serving.gateway.config import GatewayConfig
from neuro_latent_serving.gateway.server import GatewayServer, triton_client
from neuro_latent_serving.launch import FREE_PORTS, ServerConfig, TritonServer
from neuro_latent_serving.settings import CACHE_VARIABLE

COUNTERS_LAG_S = 1.2
"""The engine hands its counters to Triton twice a second."""

TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class TraceConfig:
    """What is measured.

    Attributes:
        clients: of the closed loops.
        max_length: tokens a request asks for.
        requests: of each loop, with a prompt of its own up to 128.
        rounds: of each number of clients, over gRPC and through the gateway in turn.
    """

    clients: tuple[int, ...] = (1, 4, 16)
    max_length: int = 64
    requests: int = 64
    rounds: int = 3

    def quick(self) -> "TraceConfig":
        """Enough to see that everything works."""
        return TraceConfig(self.clients[:2], 16, 12, 1)


def run(repository: Path, config: TraceConfig) -> dict[str, Any]:
    """Start the server without caches and measure it.

    Raises:
        BenchError: a request failed.
    """
    report.progress("  starting Triton")
    settings = ServerConfig(ports=FREE_PORTS, drain_timeout=3, environment={CACHE_VARIABLE: "0"})
    with TritonServer(repository, settings) as server:
        return {"triton": server.version, "waterfalls": measure(server, config)}


def measure(server: TritonServer, config: TraceConfig) -> list[dict[str, Any]]:
    """Ask a server that runs the same prompts over gRPC and through a gateway, in turns.

    Raises:
        BenchError: a request failed.
    """
    jobs: Sequence[Job] = [(text, config.max_length) for text in prompt_texts(config.requests)]
    front, steps, found = GatewayConfig(port=0, log_file=Path(os.devnull)), ensemble_steps(server.http_url), []
    with ExitStack() as stack:
        gateway = stack.enter_context(GatewayServer(front, lambda: triton_client(front, server.grpc_url)))
        gateway.start()
        grpc, rest = (stack.enter_context(LoadProcess(url)) for url in (server.grpc_url, gateway.url))
        for load in (grpc, rest):
            load.closed(jobs[:8], clients=2)
        for clients in config.clients:
            report.progress(f"  {clients} at a time, {config.rounds} x {len(jobs)} requests over gRPC and the gateway")
            rounds = []
            for _ in range(config.rounds):
                before = totals(server)
                direct = answered(grpc.closed(jobs, clients=clients))
                after = totals(server)
                rounds.append(Round(before, after, direct, answered(rest.closed(jobs, clients=clients))))
            found.append({"clients": clients, **waterfall(steps, rounds)})
    return found


def answered(run: LoadRun) -> list[float]:
    """Milliseconds of each request.

    Raises:
        BenchError: one failed.
    """
    if error := next((timing.error for timing in run.timings if timing.error), ""):
        raise BenchError(f"a request failed: {error}")
    return [(timing.end - timing.start) * 1000 for timing in run.timings]


Totals = dict[tuple[str, str], float]
"""Milliseconds of all requests since the server started, by model or "engine", and what they were spent on."""


def totals(server: TritonServer) -> Totals:
    """The totals now, when every request has ended."""
    time.sleep(COUNTERS_LAG_S)
    return model_ms(read_json(f"{server.http_url}/v2/models/stats")) | engine_ms(metrics.counters(server.metrics_url))


def read_json(url: str) -> Any:
    """A JSON document of the server."""
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
        return json.load(answer)


def ensemble_steps(http_url: str) -> list[str]:
    """The models that a request passes, in their order."""
    config = read_json(f"{http_url}/v2/models/{UNARY_MODEL}/config")
    return [step["model_name"] for step in config["ensemble_scheduling"]["step"]]


def model_ms(document: Mapping[str, Any]) -> Totals:
    """Of Triton's document of statistics: milliseconds of each model in all (``success``) and of its ``queue``."""
    found: Totals = defaultdict(float)
    for model in document["model_stats"]:  # each version of a model
        for kind in ("success", "queue"):
            found[model["name"], kind] += model["inference_stats"][kind]["ns"] / 1e6
    return found


def engine_ms(counters: Mapping[str, float]) -> Totals:
    """Milliseconds of requests on their way to the engine (``encode``), in it (``all``), and in each part of it."""
    names = {"all": "request_seconds", **{part: f"request_{part}_seconds" for part in metrics.REQUEST_PARTS}}
    return {("engine", part): counters[name] * 1000 for part, name in names.items()}


@dataclass(frozen=True, slots=True)
class Round:
    """The same prompts over gRPC and through the gateway: milliseconds of each request, and totals around the first."""

    before: Totals
    after: Totals
    direct: list[float]
    through: list[float]


def waterfall(steps: Sequence[str], rounds: Sequence[Round]) -> dict[str, Any]:
    """The parts of the mean request, in the round of the median mean: a machine may stand still for a while.

    Args:
        steps: the models that a request passes, the decoder last.
        rounds: of the same number of clients.

    Returns:
        parts: milliseconds of each part, in a request's order, and ``where`` it is: a hop between processes, a model of
            Triton, or the engine. Without the gateway, their sum is ``mean_ms``.
        mean_ms: over gRPC, in that round; median_ms, gateway_median_ms: of all requests over gRPC, and of the others.
    """
    one = sorted(rounds, key=lambda one: fmean(one.direct))[len(rounds) // 2]

    def of(where: str, kind: str) -> float:
        return (one.after[where, kind] - one.before[where, kind]) / len(one.direct)

    mean, inside = fmean(one.direct), {part: of("engine", part) for part in metrics.REQUEST_PARTS}
    gateway = percentile([percentile(one.through, 50) - percentile(one.direct, 50) for one in rounds], 50)
    waiting = sum(of(name, "queue") for name in steps)
    # Not the decoder's: there, Triton's clock stops when it has handed the request on to the engine's process.
    models = {name: of(name, "success") - of(name, "queue") for name in steps[:-1]}
    arrived = of(steps[0], "queue") + inside.pop("encode")
    parts = [
        ("gateway", "hop", gateway),
        ("client and gRPC", "hop", mean - of(UNARY_MODEL, "success")),
        ("waiting in Triton", "hop", waiting),
        *((name, "model", ms) for name, ms in models.items()),
        ("between models", "hop", arrived - waiting - sum(models.values())),
        ("waiting for a slot", "engine", inside["queue"]),
        ("prefill", "engine", inside["prefill"]),
        ("others' prefill", "engine", of("engine", "all") - sum(inside.values())),
        ("steps", "engine", inside["decode"]),
        ("drafts, texts, guard", "engine", inside["text"]),
        ("back from the engine", "hop", of(UNARY_MODEL, "success") - arrived - of("engine", "all")),
    ]
    return {
        "requests": len(one.direct),
        "mean_ms": significant(mean),
        "median_ms": significant(percentile([ms for one in rounds for ms in one.direct], 50)),
        "gateway_median_ms": significant(percentile([ms for one in rounds for ms in one.through], 50)),
        "parts": [{"part": name, "where": where, "ms": round(ms, 2)} for name, where, ms in parts],
    }


def show(result: Mapping[str, Any]) -> None:
    """The result as a table, a column for each number of clients."""
    found = result["waterfalls"]
    rows = [[part["part"], *(one["parts"][i]["ms"] for one in found)] for i, part in enumerate(found[0]["parts"])]
    for name, key in (("mean over gRPC", "mean_ms"), ("median", "median_ms"), ("through gateway", "gateway_median_ms")):
        rows.append([name, *(one[key] for one in found)])
    columns = [f"{one['clients']} client{'s' * (one['clients'] > 1)}" for one in found]
    report.table("ms of the mean request", ("", *columns), rows)
