"""``neuro-latent bench serve``: a real Triton over gRPC, closed and open loop, and what Triton itself costs."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuro_latent_benchmarks import metrics, report, zipf
from neuro_latent_benchmarks.load import Job, LoadProcess, LoadRun
from neuro_latent_benchmarks.pipeline import Pipeline
from neuro_latent_benchmarks.prompts import prompt_texts
from neuro_latent_benchmarks.report import BenchError
from neuro_latent_benchmarks.statistics import Spread, percentile, poisson_schedule, significant
from neuro_latent_client import Client
from neuro_latent_serving.launch import FREE_PORTS, ServerConfig, TritonServer
from neuro_latent_serving.settings import CACHE_VARIABLE

COUNT = 64
"""Different prompts of the load."""

FIRST_REQUESTS = 10
SEED = 7


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """What is measured.

    Attributes:
        concurrency: clients of the closed loops.
        loads: arrival rates of the open loops, as shares of the most requests a second that a closed loop reached.
        max_length: tokens a request asks for.
        seconds: of each loop.
        alternations: requests through Triton and in one process, in turns.
        starts: how often the server is started to see its first requests.
        zipf_rounds, zipf_requests: of prompts that repeat, with and without caches. All else is measured without.
    """

    concurrency: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    loads: tuple[float, ...] = (0.5, 0.8)
    max_length: int = 64
    seconds: float = 10.0
    alternations: int = 30
    starts: int = 3
    zipf_rounds: int = 3
    zipf_requests: int = 400

    def quick(self) -> "ServeConfig":
        """Enough to see that everything works."""
        return ServeConfig((1, 4), (0.5,), 16, 1.5, 6, 1, 1, 40)


def run_server(repository: Path, config: ServeConfig) -> dict[str, Any]:
    """Start the server as often as asked, then load the last one."""
    firsts: list[list[float]] = []
    for number in range(config.starts):
        report.progress(f"  starting Triton ({number + 1} of {config.starts})")
        uncached = ServerConfig(ports=FREE_PORTS, drain_timeout=3, environment={CACHE_VARIABLE: "0"})
        with TritonServer(repository, uncached) as server:
            firsts.append(first_requests(server.grpc_url, config.max_length))
            if number < config.starts - 1:
                continue
            jobs = [(text, config.max_length) for text in prompt_texts(COUNT)]
            report.progress("  the same requests through Triton and in one process, in turns")
            added = what_triton_adds(server.grpc_url, repository, jobs, config.alternations)
            with LoadProcess(server.grpc_url) as load:
                load.closed(jobs[:4], clients=2, stream=True)
                found = loops(load, server.metrics_url, jobs, config)
            version = server.version
    repeated = zipf.measure(repository, config.max_length, config.zipf_rounds, config.zipf_requests)
    return {"triton": version, "first_requests": first_json(firsts), "triton_adds": added, "zipf": repeated, **found}


def load_running(url: str, config: ServeConfig) -> dict[str, Any]:
    """The loops on a server that runs already.

    Raises:
        BenchError: it is not ready.
    """
    with Client(url) as client:
        health = client.health()
    if not health.ready:
        raise BenchError(f"--url {url}: {health.problem}")
    jobs = [(text, config.max_length) for text in prompt_texts(COUNT)]
    with LoadProcess(url) as load:
        load.closed(jobs[:4], clients=2, stream=True)
        return loops(load, "", jobs, config)


def first_requests(url: str, max_length: int) -> list[float]:
    """Milliseconds of the first ten requests after the server is ready, one after the other, the same prompt."""
    (text,) = prompt_texts(1)
    times = []
    with Client(url) as client:
        client.health()  # the connection is not the server's
        for _ in range(FIRST_REQUESTS):
            start = time.perf_counter()
            client.optimize(text, max_length=max_length)
            times.append((time.perf_counter() - start) * 1000)
    return times


def first_json(firsts: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The first request against the tenth, by the medians over the starts, in milliseconds."""
    first, tenth = (percentile([times[i] for times in firsts], 50) for i in (0, FIRST_REQUESTS - 1))
    return {
        "first_ms": significant(first),
        "tenth_ms": significant(tenth),
        "first_over_tenth": round(first / tenth, 3),
        "starts": len(firsts),
    }


def what_triton_adds(url: str, repository: Path, jobs: Sequence[Job], alternations: int) -> dict[str, Any]:
    """The time of a request through Triton and of the same work in this process, one after the other, one client.

    ``added_ms`` is the spread of the differences; ``added_share`` the median's share of the request through Triton.
    """
    through, inside, added = [], [], []
    with Pipeline(repository) as pipeline, Client(url) as client:
        for number in range(alternations + 2):
            prompt, max_length = jobs[number % len(jobs)]
            start = time.perf_counter()
            client.optimize(prompt, max_length=max_length)
            triton_ms = (time.perf_counter() - start) * 1000
            process_ms = pipeline.answer(prompt, max_length).total_s * 1000
            if number >= 2:  # the first two warm up
                through.append(triton_ms)
                inside.append(process_ms)
                added.append(triton_ms - process_ms)
    return {
        "through_triton_ms": Spread.of(through).as_json(),
        "in_one_process_ms": Spread.of(inside).as_json(),
        "added_ms": Spread.of(added).as_json(),
        "added_share": round(percentile(added, 50) / percentile(through, 50), 4),
    }


def loops(
    load: LoadProcess, metrics_url: str, jobs: Sequence[Job], config: ServeConfig
) -> dict[str, list[dict[str, Any]]]:
    """The closed loops, then the open ones at shares of what the closed ones reached.

    Args:
        metrics_url: of the engine's counters, which are left out where it is "".
    """
    closed = []
    for clients in config.concurrency:
        report.progress(f"  closed loop, {clients} clients, {config.seconds:g} s")
        before = metrics.counters(metrics_url) if metrics_url else {}
        run = load.closed(jobs, clients=clients, seconds=config.seconds, stream=True)
        engine = metrics.between(before, metrics.counters(metrics_url), run.seconds) if metrics_url else {}
        closed.append({"clients": clients, **run_json(run), "engine": engine})
    capacity = max(point["requests_per_second"] for point in closed)
    opened = []
    for share in config.loads if capacity else ():
        rate = share * capacity
        report.progress(f"  open loop, {rate:.2f} requests/s ({share:.0%} of the most), {config.seconds:g} s")
        run = load.open(jobs, poisson_schedule(rate, config.seconds, SEED))
        opened.append({"share_of_capacity": share, "rate": significant(rate), **run_json(run)})
    return {"closed_loop": closed, "open_loop": opened}


def run_json(run: LoadRun) -> dict[str, Any]:
    """Milliseconds as percentiles, throughput, errors of a run of streamed requests."""
    good = run.good
    result: dict[str, Any] = {
        "requests": len(run.timings),
        "errors": len(run.timings) - len(good),
        "requests_per_second": significant(len(good) / run.seconds),
        "tokens_per_second": significant(run.tokens / run.seconds),
    }
    if good:
        result |= {
            "latency_ms": percentiles([(r.end - r.start) * 1000 for r in good]),
            "first_piece_ms": percentiles([(r.first - r.start) * 1000 for r in good]),
        }
        # After the first piece: what a reader waits for each further token.
        after = [(r.end - r.first) / (r.tokens - 1) * 1000 for r in good if r.tokens > 1]
        result["token_ms"] = percentiles(after) if after else None
    elif run.timings:
        result["first_error"] = run.timings[0].error
    return result


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99."""
    return {f"p{percent}": significant(percentile(values, percent)) for percent in (50, 95, 99)}


COLUMNS = {
    "p50 ms": ("latency_ms", "p50"),
    "p95": ("latency_ms", "p95"),
    "p99": ("latency_ms", "p99"),
    "first text p50 ms": ("first_piece_ms", "p50"),
    "first p95": ("first_piece_ms", "p95"),
    "ms/token": ("token_ms", "p50"),
    "tokens/s": ("tokens_per_second",),
    "requests/s": ("requests_per_second",),
    "rows/step": ("engine", "rows_per_step"),
    "errors": ("errors",),
}
"""Of the table of the loops: where in a point each figure is."""


def show(result: Mapping[str, Any]) -> None:
    """The result as tables."""
    rows = []
    for point in [*result["closed_loop"], *result["open_loop"]]:
        row: list[Any] = [f"{point['clients']} clients" if "clients" in point else f"Poisson {point['rate']:.3g}/s"]
        for place in COLUMNS.values():
            value: Any = point
            for key in place:
                value = (value or {}).get(key)
            row.append(value)
        rows.append(row)
    report.table("over gRPC, streamed", ("", *COLUMNS), rows)
    if "triton_adds" not in result:
        return
    names = {"through Triton": "through_triton_ms", "in one process": "in_one_process_ms", "difference": "added_ms"}
    spreads = {name: result["triton_adds"][key] for name, key in names.items()}
    rows = [[name, spread["median"], spread["p10"], spread["p90"]] for name, spread in spreads.items()]
    report.table("what Triton adds, one client, in turns", ("", "median ms", "p10", "p90"), rows)
    repeated = result["zipf"]
    report.console.print(
        f"prompts that repeat (Zipf, s = 1): {repeated['without']['median']} requests/s without caches, "
        f"{repeated['with']['median']} with them ({repeated['ratio']}x); "
        + ("the same answers" if repeated["same_answers"] else "OTHER ANSWERS"),
        highlight=False,
    )
    first = result["first_requests"]
    report.console.print(
        f"first request after ready {first['first_ms']:.1f} ms, tenth {first['tenth_ms']:.1f} ms: "
        f"{first['first_over_tenth']:.2f}x ({first['starts']} starts)",
        highlight=False,
    )
