"""Closed loops for the service times and open loops to check the simulation, in turns, on a real Triton."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from neuro_latent_benchmarks import report
from neuro_latent_benchmarks.load import LoadProcess, LoadRun
from neuro_latent_benchmarks.prompts import prompt_texts
from neuro_latent_benchmarks.report import BenchError
from neuro_latent_benchmarks.statistics import poisson_schedule
from neuro_latent_core.options import RequestOptions
from neuro_latent_serving.launch import FREE_PORTS, ServerConfig, TritonServer
from neuro_latent_serving.settings import CACHE_VARIABLE
from research.capacity.service_times import ClosedRun

PROMPTS = 64
SEED = 7
LONGER = 3
"""Times that the closed loop with the most clients, which tells the capacity, is longer than the others."""

OTHERS = "other programs"


@dataclass(frozen=True, slots=True)
class CapacityConfig:
    """What is measured.

    Attributes:
        loads: arrival rates of the open loops, as shares of the capacity, which is what the closed loop with the most
            clients reached: a rate that the server also keeps when many wait.
        seconds: of each open loop.
        clients: of the closed loops, all before the first open loop and again after each.
        closed_seconds: of each closed loop.
    """

    loads: tuple[float, ...] = (0.5, 0.8, 0.95)
    seconds: float = 45.0
    clients: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
    closed_seconds: float = 2.5

    def quick(self) -> "CapacityConfig":
        """Enough to see that everything works."""
        return CapacityConfig((0.5,), 5.0, (1, 4, 16), 1.5)


@dataclass(frozen=True, slots=True)
class ClosedSet:
    """Closed loops with each number of clients.

    Attributes:
        cores: that were busy, on average, by program: a model of the server, ``tritonserver``, ``load``, OTHERS.
    """

    runs: tuple[ClosedRun, ...]
    cores: dict[str, float]

    @property
    def capacity(self) -> float:
        """Requests a second with the most clients."""
        return max(self.runs, key=lambda closed: closed.clients).rate


@dataclass(frozen=True, slots=True)
class OpenRun:
    """An open loop; request ``n`` asked for prompt ``n % PROMPTS``."""

    load: float
    arrivals: tuple[float, ...]
    run: LoadRun
    cores: dict[str, float]


def measure(repository: Path, config: CapacityConfig) -> tuple[list[ClosedSet], list[OpenRun]]:
    """Closed loops, then in turns an open loop and closed ones: the open loop ``n`` lies between the sets ``n`` and
    ``n + 1``, so that both see the same machine where its speed drifts."""
    jobs = [(text, RequestOptions().max_length) for text in prompt_texts(PROMPTS)]
    uncached = ServerConfig(ports=FREE_PORTS, drain_timeout=3, environment={CACHE_VARIABLE: "0"})
    report.progress("  starting Triton")
    with TritonServer(repository, uncached) as server, LoadProcess(server.grpc_url) as load:
        load.closed(jobs, clients=4, stream=True)
        closed, opened = [closed_set(load, jobs, config)], []
        for share in config.loads:
            rate = share * closed[-1].capacity
            report.progress(f"  open loop, {rate:.1f} requests/s ({share:.0%}), {config.seconds:g} s")
            arrivals = exact_schedule(rate, config.seconds)
            watch = CpuWatch()
            run = load.open(jobs, arrivals)
            opened.append(OpenRun(share, tuple(arrivals), run, watch.cores()))
            closed.append(closed_set(load, jobs, config))
        return closed, opened


def closed_set(load: LoadProcess, jobs: Sequence[tuple[str, int]], config: CapacityConfig) -> ClosedSet:
    """All closed loops once. Each goes on in the prompts where the last one stopped."""
    report.progress(f"  closed loops, {', '.join(map(str, config.clients))} clients, {config.closed_seconds:g} s each")
    runs, first = [], 0
    watch = CpuWatch()
    for clients in config.clients:
        seconds = config.closed_seconds * (LONGER if clients == max(config.clients) else 1)
        run = load.closed([*jobs[first:], *jobs[:first]], clients=clients, seconds=seconds, stream=True)
        if not run.good:
            raise BenchError(f"the server answers no more: {run.timings[0].error if run.timings else 'no request'}")
        runs.append(ClosedRun(run, clients, first, steady_rate(run, seconds)))
        first = (first + len(run.timings)) % len(jobs)
    return ClosedSet(tuple(runs), watch.cores())


def exact_schedule(rate: float, seconds: float) -> list[float]:
    """Random arrivals, stretched so that exactly ``rate`` a second come: near the capacity a percent more counts."""
    arrivals = poisson_schedule(rate, seconds, SEED)
    return [at * len(arrivals) / rate / arrivals[-1] for at in arrivals]


def steady_rate(run: LoadRun, seconds: float) -> float:
    """Requests a second that ended in a closed loop while all clients were there, its first third left out."""
    return sum(seconds / 3 <= timing.end < seconds for timing in run.good) / (seconds * 2 / 3)


class CpuWatch:
    """Which programs keep the cores busy, from when it is made."""

    def __init__(self) -> None:
        self._start, self._before = time.perf_counter(), cpu_seconds()

    def cores(self) -> dict[str, float]:
        """Busy cores by program, on average."""
        seconds = time.perf_counter() - self._start
        return {name: (used - self._before.get(name, 0.0)) / seconds for name, used in cpu_seconds().items()}


def cpu_seconds() -> dict[str, float]:
    """Processor time so far, by program."""
    found: dict[str, float] = {}
    for process in psutil.Process().children(recursive=True):
        try:
            times, command = process.cpu_times(), process.cmdline()
        except psutil.NoSuchProcess:  # ended meanwhile
            continue
        if "triton_python_backend_stub" in process.name() or "triton_python_backend_stub" in command[0]:
            name = Path(command[1]).parent.parent.name
        else:
            name = "tritonserver" if "tritonserver" in command[0] else "load"
        found[name] = found.get(name, 0.0) + times.user + times.system
    machine = psutil.cpu_times()
    return found | {OTHERS: machine.user + machine.nice + machine.system - sum(found.values())}
