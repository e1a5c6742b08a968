"""Systems take turns on the same texts: one client, then prompts that are copied, then many clients."""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from neuro_latent_benchmarks.report import BenchError
from neuro_latent_benchmarks.statistics import Spread
from research.baselines.measures import agreement, copied_share, per_token, speed_up
from research.baselines.process import WorkerProcess
from research.baselines.systems import (
    BASELINES,
    COMPILED,
    CT2_FLOAT,
    CT2_INT8,
    EXACT,
    HF,
    NEEDED,
    OURS,
    PLAIN,
    Systems,
)
from research.synthetic import shapes
from research.synthetic.shapes import Models, Style

Log = Callable[[str], None]
Pythons = Mapping[str, Path | BenchError]

SETTLE_S: Final = 0.25
"""Pause before a turn: threads of the system that was at work spin a little while before they sleep."""

WARM_UP_PROMPTS: Final = 3
CALIBRATION_CALLS: Final = 3
REASON_LENGTH: Final = 300


@dataclass(frozen=True, slots=True)
class ComparisonConfig:
    """What is compared, and how long.

    Attributes:
        precision: of our graphs, with one client.
        threads: the most a system may use.
        rounds: turns of each system; a round is one prompt.
        prompts: how many different prompts the rounds go through.
        input_tokens: of a prompt.
        new_tokens, short_tokens: lengths of the two texts whose difference gives the time of a token.
        clients, requests: of the comparison with many clients.
        clients_precision: of our graphs there.
        workload_rounds: turns of each system there.
    """

    shape: str
    precision: str
    threads: int
    rounds: int = 15
    prompts: int = 8
    input_tokens: int = 44
    new_tokens: int = 64
    short_tokens: int = 8
    clients: int = 16
    requests: int = 128
    clients_precision: str = "int8"
    workload_rounds: int = 3

    def quick(self) -> "ComparisonConfig":
        """Enough to see that everything works; not enough to compare."""
        return replace(self, rounds=3, prompts=3, requests=16, workload_rounds=1)


@dataclass(slots=True)
class Turns:
    """What one system did in its turns: milliseconds, and the tokens by prompt."""

    per_token_ms: list[float] = field(default_factory=list)
    call_ms: list[float] = field(default_factory=list)
    texts: dict[int, list[int]] = field(default_factory=dict)


def take_turns(
    workers: Mapping[str, WorkerProcess],
    prompts: Sequence[list[int]],
    config: ComparisonConfig,
    log: Log,
    settle_s: float = SETTLE_S,
) -> dict[str, Turns]:
    """Let every system write every round's prompt, a short text and a long one, one system after the other."""
    turns = {name: Turns() for name in workers}
    for name, worker in workers.items():  # what happens only once is not measured
        log(f"  warming up {name}")
        lengths = itertools.cycle((config.new_tokens, config.short_tokens))
        for ids, new_tokens in zip(prompts[:WARM_UP_PROMPTS], lengths, strict=False):
            worker.ask("generate", ids=ids, new_tokens=new_tokens)
    for number in range(config.rounds):
        log(f"  round {number + 1} of {config.rounds}")
        which = number % len(prompts)
        for name, worker in workers.items():
            time.sleep(settle_s)
            short, long = (
                worker.ask("generate", ids=prompts[which], new_tokens=new_tokens)
                for new_tokens in (config.short_tokens, config.new_tokens)
            )
            mine = turns[name]
            mine.per_token_ms.append(
                per_token(long["seconds"], short["seconds"], config.new_tokens, config.short_tokens)
            )
            mine.call_ms.append(long["seconds"] * 1000)
            mine.texts[which] = long["tokens"]
    return turns


def best_threads(systems: Systems, name: str, ids: list[int], config: ComparisonConfig, log: Log) -> int:
    """The number of threads, 1 or all, with which a system is faster on one prompt."""
    times: dict[int, float] = {}
    for threads in sorted({1, config.threads}):
        with systems.start(name, threads) as worker:
            worker.ask("generate", ids=ids, new_tokens=config.short_tokens)
            calls = [worker.ask("generate", ids=ids, new_tokens=config.new_tokens) for _ in range(CALIBRATION_CALLS)]
        times[threads] = min(call["seconds"] for call in calls)
    best = min(times, key=times.__getitem__)
    log(f"  {name}: {', '.join(f'{t} thread(s) {s * 1000:.0f} ms' for t, s in times.items())}; {best} is taken")
    return best


@contextmanager
def opened(
    models: Models, config: ComparisonConfig, pythons: Pythons, rows: list[list[int]], log: Log
) -> Iterator[Systems]:
    """The systems of a pair; the encoder states for ours are made before, and removed after."""
    repository = shapes.repository(models, config.precision, log)
    exact = shapes.repository(models, "fp32", log)
    with tempfile.TemporaryDirectory(prefix="neuro-latent-bench-") as folder:
        states = Path(folder) / "states.npz"
        shapes.encoder_states(models, rows, states)
        yield Systems(models, pythons, repository, exact, states)


def one_client(
    style: Style,
    config: ComparisonConfig,
    threads: dict[str, int],
    left_out: dict[str, str],
    pythons: Pythons,
    log: Log,
) -> dict[str, Any]:
    """One client, one text at a time, on the weights of a style.

    Args:
        threads: of each baseline; those that are missing are measured and filled in.
        left_out: baselines that are not measured, and why; those that fail are filled in.
        pythons: interpreter of each environment of the baselines, or why there is none.
    """
    models = shapes.prepare(config.shape, style, log)
    prompts = shapes.prompt_ids(models, config.prompts, config.input_tokens)
    names = [OURS, PLAIN, *([] if config.precision == "fp32" else [EXACT])]
    # The others take their time for a token whatever is written.
    names += (HF, CT2_FLOAT, CT2_INT8) if style == "copying" else BASELINES
    workers: dict[str, WorkerProcess] = {}
    with opened(models, config, pythons, prompts, log) as systems, ExitStack() as stack:
        threads.setdefault(COMPILED, config.threads)  # it compiles for a minute; with one thread it is slower
        for name in names:
            if name in BASELINES and name not in threads:
                with leaving_out(name, left_out, log):
                    threads[name] = best_threads(systems, name, prompts[0], config, log)
        for name in [name for name in names if name not in left_out]:
            log(f"  loading {name}")
            with leaving_out(name, left_out, log):
                worker = stack.enter_context(systems.start(name, threads.get(name, config.threads)))
                worker.ask("generate", ids=prompts[0], new_tokens=config.short_tokens)  # some compile only here
                workers[name] = worker
        turns = take_turns(workers, prompts, config, log)
        versions: dict[str, str] = {}
        for name, worker in workers.items():
            versions |= {f"{name}: {package}": version for package, version in worker.versions.items()}
    return summary(turns, prompts) | {"versions": versions}


@contextmanager
def leaving_out(name: str, left_out: dict[str, str], log: Log) -> Iterator[None]:
    """Where a baseline fails that no ratio needs, note why in one line and go on without it."""
    try:
        yield
    except BenchError as error:
        if name not in BASELINES or name in NEEDED:
            raise
        left_out[name] = " ".join(str(error).split())[:REASON_LENGTH]
        log(f"  {name} is left out: {left_out[name]}")


def summary(turns: Mapping[str, Turns], prompts: Sequence[list[int]]) -> dict[str, Any]:
    """Spreads in milliseconds, who writes the same, and how much of it is copied from the prompt."""
    written = {name: [mine.texts[i] for i in sorted(mine.texts)] for name, mine in turns.items()}
    sources = [prompts[i] for i in sorted(turns[OURS].texts)]
    exact = EXACT if EXACT in turns else OURS
    pairs = [(exact, HF), (OURS, PLAIN), (OURS, exact), *((name, HF) for name in BASELINES)]
    compared = {
        f"{a} = {b}": agreement(written[a], written[b]) for a, b in pairs if a != b and a in written and b in written
    }
    return {
        "per_token_ms": {name: Spread.of(mine.per_token_ms).as_json() for name, mine in turns.items()},
        "call_ms": {name: Spread.of(mine.call_ms).as_json() for name, mine in turns.items()},
        "identical": {name: round(found.identical, 4) for name, found in compared.items()},
        "same_start": {name: round(found.same_start, 4) for name, found in compared.items()},
        "copied": round(
            sum(copied_share(s, t) for s, t in zip(sources, written[exact], strict=True)) / len(sources), 3
        ),
    }


def ratio(scenario: Mapping[str, Any], theirs: str, ours: str) -> float:
    """How many times faster per token ours is than theirs, by the medians of one scenario."""
    medians = scenario["per_token_ms"]
    return round(speed_up(medians[theirs]["median"], medians[ours]["median"]), 3)


def identical_tokens(scenarios: Mapping[str, Mapping[str, Any]]) -> dict[str, bool | float]:
    """By scenario and pair: true where every token of every text is the same, else the share of such texts."""
    return {
        f"{scenario}: {pair}": True if share == 1 else share
        for scenario, result in scenarios.items()
        for pair, share in result["identical"].items()
    }
