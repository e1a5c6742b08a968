"""``neuro-latent bench trace``: where a request's time goes, from the client through Triton and the engine and back.

Triton counts nanoseconds of each model (``/v2/models/stats``), the engine seconds of its own parts (``/metrics``); both
are read before and after many requests. What lies between the client's clock and Triton's is transport.
"""

import json
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
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

COUNT = 120
"""Different prompts of the load."""

DECODER = "t5_decoder_unary"
COUNTERS_LAG_S = 1.2
"""The engine hands its counters to Triton twice a second."""

TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class TraceConfig:
    """What is measured.

    Attributes:
        clients: of the closed loops.
        max_length: tokens a request asks for.
        requests: of each loop.
        rounds: of each number of clients, over gRPC and through the gateway in turn.
    """

    clients: tuple[int, ...] = (1, 4, 16)
    max_length: int = 64
    requests: int = 120
    rounds: int = 3

    def quick(self) -> "TraceConfig":
        """Enough to see that everything works."""
        return TraceConfig(self.clients[:2], 16, 12, 1)


def run(repository: Path, config: TraceConfig) -> dict[str, Any]:
    """Start the server and a gateway, and ask the same prompts through both, in turns.

    Raises:
        BenchError: a request failed.
    """
    jobs: Sequence[Job] = [(text, config.max_length) for text in prompt_texts(COUNT)][: config.requests]
    with ExitStack() as stack:
        report.progress("  starting Triton and a gateway")
        settings = ServerConfig(ports=FREE_PORTS, drain_timeout=3, environment={CACHE_VARIABLE: "0"})
        server = stack.enter_context(TritonServer(repository, settings))
        front = GatewayConfig(port=0, quiet=True)
        gateway = stack.enter_context(GatewayServer(front, lambda: triton_client(front, server.grpc_url)))
        gateway.start()
        loads = [stack.enter_context(LoadProcess(url)) for url in (server.grpc_url, gateway.url)]
        steps = ensemble_steps(server.http_url)
        for load in loads:
            load.closed(jobs[:8], clients=2)
        found = []
        for clients in config.clients:
            report.progress(f"  {clients} clients, {config.rounds} times {len(jobs)} requests over gRPC and REST")
            rounds = []
            for _ in range(config.rounds):
                before = Reading.of(server)
                direct = answered(loads[0].closed(jobs, clients=clients))
                after = Reading.of(server)
                rounds.append((before, after, direct, answered(loads[1].closed(jobs, clients=clients))))
            found.append({"clients": clients, **waterfall(steps, rounds)})
        return {"triton": server.version, "waterfalls": found}


def answered(run: LoadRun) -> list[float]:
    """Milliseconds of each request.

    Raises:
        BenchError: one failed.
    """
    if error := next((timing.error for timing in run.timings if timing.error), ""):
        raise BenchError(f"a request failed: {error}")
    return [(timing.end - timing.start) * 1000 for timing in run.timings]


@dataclass(frozen=True, slots=True)
class Reading:
    """A server's totals: milliseconds of Triton's models by name, and milliseconds of the engine's parts."""

    models: Mapping[str, Mapping[str, float]]
    engine: Mapping[str, float]

    @classmethod
    def of(cls, server: TritonServer) -> "Reading":
        """The totals now, when every request has ended."""
        time.sleep(COUNTERS_LAG_S)
        return cls(model_ms(read_json(f"{server.http_url}/v2/models/stats")), engine_ms(server.metrics_url))


def read_json(url: str) -> Any:
    """A JSON document of the server."""
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
        return json.load(answer)


def ensemble_steps(http_url: str) -> list[str]:
    """The models that a request passes, in their order."""
    config = read_json(f"{http_url}/v2/models/{UNARY_MODEL}/config")
    return [step["model_name"] for step in config["ensemble_scheduling"]["step"]]


def model_ms(document: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Of Triton's document of statistics: for each model, milliseconds in all (``success``) and of its ``queue``."""
    found: dict[str, dict[str, float]] = {}
    for model in document["model_stats"]:
        totals = found.setdefault(model["name"], {"success": 0.0, "queue": 0.0})
        for name in totals:
            totals[name] += model["inference_stats"][name]["ns"] / 1e6
    return found


def engine_ms(metrics_url: str) -> dict[str, float]:
    """Milliseconds of requests in the engine, by part."""
    return {name: seconds * 1000 for name, seconds in metrics.counters(metrics_url).items() if name.endswith("seconds")}


def waterfall(
    steps: Sequence[str], rounds: Sequence[tuple[Reading, Reading, list[float], list[float]]]
) -> dict[str, Any]:
    """The parts of the mean request.

    Args:
        steps: the models that a request passes, the decoder last.
        rounds: readings before and after, and milliseconds of each request over gRPC and then through the gateway.

    Returns:
        parts: milliseconds by part, in a request's order; together they are ``mean_ms`` and ``gateway``.
        mean_ms, median_ms: of requests over gRPC; gateway_median_ms: of those through the gateway.
    """
    times = [ms for _, _, direct, _ in rounds for ms in direct]
    through = [ms for *_, gateway in rounds for ms in gateway]

    def of(name: str, kind: str) -> float:
        return sum(b.models[name][kind] - a.models[name][kind] for a, b, _, _ in rounds) / len(times)

    def engine(part: str) -> float:
        name = f"request_{part}_seconds" if part else "request_seconds"
        return sum(b.engine.get(name, 0.0) - a.engine.get(name, 0.0) for a, b, _, _ in rounds) / len(times)

    mean, whole = sum(times) / len(times), of(UNARY_MODEL, "success")
    before = [name for name in steps if name != DECODER]
    inside = {part: engine(part) for part in ("queue", "prefill", "decode", "text")}
    parts = {
        "gateway": percentile([percentile(g, 50) - percentile(d, 50) for _, _, d, g in rounds], 50),
        "client and gRPC": mean - whole,
        # Of the decoder, Triton's clock stops when it has handed the request on to the engine's process.
        "between models and back": whole - sum(of(n, "success") for n in before) - of(DECODER, "queue") - engine(""),
        "waiting in Triton": sum(of(name, "queue") for name in steps),
        **{name: of(name, "success") - of(name, "queue") for name in before},
        "waiting for a slot": inside["queue"],
        "prefill": inside["prefill"],
        "waiting for others' prefill": engine("") - sum(inside.values()),
        "steps": inside["decode"],
        "drafts, texts, gate, guard": inside["text"],
    }
    return {
        "requests": len(times),
        "mean_ms": significant(mean),
        "median_ms": significant(percentile(times, 50)),
        "gateway_median_ms": significant(percentile(through, 50)),
        "parts": {name: round(ms, 3) for name, ms in parts.items()},
    }


def show(result: Mapping[str, Any]) -> None:
    """The result as a table, a column for each number of clients."""
    found = result["waterfalls"]
    rows: list[list[Any]] = [[name, *(one["parts"][name] for one in found)] for name in found[0]["parts"]]
    for name, key in (("mean over gRPC", "mean_ms"), ("median", "median_ms"), ("through gateway", "gateway_median_ms")):
        rows.append([name, *(one[key] for one in found)])
    report.table("ms of the mean request", ("", *(f"{one['clients']} clients" for one in found)), rows)
