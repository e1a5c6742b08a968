"""Many clients with texts of many lengths: our engine behind Triton against CTranslate2's batches."""

import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from neuro_latent_benchmarks import metrics
from neuro_latent_benchmarks.load import Job, LoadProcess
from neuro_latent_benchmarks.prompts import prompt_texts
from neuro_latent_benchmarks.report import BenchError
from neuro_latent_benchmarks.statistics import Spread
from research.baselines.compare import ComparisonConfig, Pythons
from research.baselines.process import WorkerProcess
from research.baselines.systems import CT2_INT8, Systems
from research.synthetic import shapes

Log = Callable[[str], None]
Row = tuple[list[int], int]  # token ids of a prompt, and how many tokens its text has

LENGTHS: Final = (16, 128)
SEED: Final = 20
OURS: Final = "ours, through Triton"


def lengths(count: int) -> list[int]:
    """How many tokens each request wants: uniform over :data:`LENGTHS`, the same in every run."""
    drawn = random.Random(SEED)
    return [drawn.randint(*LENGTHS) for _ in range(count)]


def grouped(rows: Sequence[Row], size: int, by_length: bool) -> list[list[Row]]:
    """Static batches of ``size``: in the order of arrival, or of similar lengths together."""
    ordered = sorted(rows, key=lambda row: row[1], reverse=True) if by_length else list(rows)
    return [ordered[i : i + size] for i in range(0, len(ordered), size)]


@dataclass(frozen=True, slots=True)
class Strategy:
    """A way to batch.

    Attributes:
        size: of a batch.
        by_length: sorted first: an advantage that only who knows all requests and their lengths beforehand has.
        rows_end: a row leaves its batch at its own length; else all go on to the longest.
        translators: batches at the same time, with a thread each; 1 has all threads.
        uniform: all lengths made equal (to the mean): nothing is wasted. For information, not for the comparison.
        whole: equal work: as many clients as ours has, each asking again when it has its answer, and their requests'
            whole work: tokenizers, RoBERTa and the text as well, not token ids alone.
    """

    size: int
    by_length: bool = False
    rows_end: bool = False
    translators: int = 1
    uniform: bool = False
    whole: bool = False


def strategies(threads: int, clients: int = 16) -> dict[str, Strategy]:
    """All that are tried, by name."""
    found = {
        "arrival, 16": Strategy(16),
        "arrival, 16, rows end": Strategy(16, rows_end=True),
        "sorted, 8": Strategy(8, by_length=True),
        "sorted, 16": Strategy(16, by_length=True),
        "sorted, 16, rows end": Strategy(16, by_length=True, rows_end=True),
        "equal lengths, 16": Strategy(16, uniform=True),
        "equal lengths, 32": Strategy(32, uniform=True),
        f"equal work, up to {clients}": Strategy(clients, whole=True),
    }
    if threads > 1:
        found |= {
            "sorted, 8, two at a time": Strategy(8, by_length=True, translators=threads),
            "sorted, 16, two at a time": Strategy(16, by_length=True, translators=threads),
        }
        for size in sorted({max(1, clients // threads), clients}):
            name = f"equal work, up to {size}, {threads} at a time"
            found[name] = Strategy(size, translators=threads, whole=True)
    return found


def decode_static(worker: WorkerProcess, strategy: Strategy, rows: Sequence[Row]) -> float:
    """Useful tokens a second of one pass over all rows."""
    if strategy.uniform:
        mean = round(sum(length for _, length in rows) / len(rows))
        rows = [(ids, mean) for ids, _ in rows]
    groups = grouped(rows, strategy.size, strategy.by_length)
    seconds = worker.ask("groups", groups=groups, rows_end=strategy.rows_end)["seconds"]
    return float(sum(length for _, length in rows) / seconds)


def serve_equally(worker: WorkerProcess, strategy: Strategy, requests: Sequence[Job], clients: int) -> float:
    """Useful tokens a second of one pass over all requests with equal work."""
    seconds = worker.ask("requests", requests=requests, clients=clients, size=strategy.size)["seconds"]
    return float(sum(length for _, length in requests) / seconds)


def many_clients(config: ComparisonConfig, pythons: Pythons, log: Log) -> dict[str, Any]:
    """Useful tokens a second of ``config.clients`` clients, each asking again when it has its answer.

    Ours is the whole request: over gRPC through a real Triton, tokenizers, RoBERTa, soft prompts and 20 more encoder
    tokens included; ``engine`` says how full its steps were in the last round. CTranslate2 works in one process,
    without a network. It gets token ids, and all of them at once; with equal work it gets texts of as many clients.

    Args:
        pythons: interpreter of each environment of the baselines.
    """
    from neuro_latent_serving.launch import FREE_PORTS, ServerConfig, TritonServer
    from neuro_latent_serving.settings import CACHE_VARIABLE

    models = shapes.prepare(config.shape, "lively", log)
    texts, wanted = prompt_texts(config.requests), lengths(config.requests)
    rows = list(zip(shapes.text_ids(models, texts), wanted, strict=True))
    requests = list(zip(texts, wanted, strict=True))
    tried = strategies(config.threads, config.clients)
    results: dict[str, list[float]] = {name: [] for name in (OURS, *tried)}
    engine: dict[str, float] = {}
    repository = shapes.repository(models, config.clients_precision, log)
    systems = Systems(models, pythons, repository, repository, Path())
    with ExitStack() as stack:
        log("  starting Triton")
        uncached = ServerConfig(ports=FREE_PORTS, environment={CACHE_VARIABLE: "0"})
        server = stack.enter_context(TritonServer(repository, uncached))
        load = stack.enter_context(LoadProcess(server.grpc_url))
        workers = {
            translators: stack.enter_context(
                systems.start(CT2_INT8, config.threads // translators, translators=translators, pair=str(models.folder))
            )
            for translators in sorted({1, config.threads})
        }
        load.closed(requests[: config.clients], clients=config.clients)
        for worker in workers.values():
            decode_static(worker, Strategy(8), rows[: config.clients])
            serve_equally(worker, Strategy(8), requests[: config.clients], config.clients)
        for number in range(config.workload_rounds):
            log(f"  round {number + 1} of {config.workload_rounds}")
            before = metrics.counters(server.metrics_url)
            done = load.closed(requests, clients=config.clients)
            engine = metrics.between(before, metrics.counters(server.metrics_url), done.seconds)
            if failed := [timing.error for timing in done.timings if timing.error]:
                raise BenchError(f"{len(failed)} of {len(requests)} requests failed: {failed[0]}")
            results[OURS].append(done.tokens / done.seconds)
            for name, strategy in tried.items():
                worker = workers[strategy.translators]
                results[name].append(
                    serve_equally(worker, strategy, requests, config.clients)
                    if strategy.whole
                    else decode_static(worker, strategy, rows)
                )
    return batching_summary(results, tried) | {"engine": engine}


def batching_summary(results: dict[str, list[float]], tried: dict[str, Strategy]) -> dict[str, Any]:
    """Spreads of tokens a second, the best strategies that count, and the speed-ups over them."""
    spreads = {name: Spread.of(values) for name, values in results.items()}
    found: dict[str, Any] = {"tokens_per_second": {name: spread.as_json() for name, spread in spreads.items()}}
    counted = {
        "static_batching": [name for name, s in tried.items() if not s.uniform and not s.whole],
        "equal_work": [name for name, s in tried.items() if s.whole],
    }
    for kind, names in counted.items():
        best = max(names, key=lambda name: spreads[name].median)
        found[f"best_{kind}"] = best
        found[f"{kind}_speed_up"] = round(spreads[OURS].median / spreads[best].median, 3)
    return found
