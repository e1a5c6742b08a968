"""The check of the simulation, what a replica serves, and what a day's prompts cost: as JSON, tables and a picture."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuro_latent_benchmarks import report
from neuro_latent_benchmarks.plots import COLORS, figure_of, save, subtitle_of
from neuro_latent_benchmarks.statistics import Spread, percentile, significant
from research.capacity.measure import OTHERS, PROMPTS, ClosedSet, OpenRun, exact_schedule
from research.capacity.service_times import ServiceTimes, service_times
from research.capacity.simulation import simulate

PERCENTS = (5, 25, 50, 75, 90, 95, 99)
CURVE_LOADS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
CURVE_SECONDS = 60.0
REPEATS = 3
DAY_S = 86_400
MONTH_H = 730


def check(before: ClosedSet, opened: OpenRun, after: ClosedSet) -> dict[str, Any]:
    """An open loop as measured, and simulated from the closed loops around it: the same arrivals and prompts."""
    good = opened.run.good
    measured = percentiles([timing.end - timing.start for timing in good])
    expected = simulated(times_of([before, after]), opened.arrivals)
    return {
        "load": opened.load,
        "rate": significant(len(opened.arrivals) / opened.arrivals[-1]),
        "requests": len(opened.arrivals),
        "errors": len(opened.arrivals) - len(good),
        "measured_ms": measured,
        "simulated_ms": expected,
        "difference": {name: round(expected[name] / measured[name] - 1, 3) for name in ("p50", "p95")},
        "cores": {name: round(cores, 2) for name, cores in opened.cores.items()},
    }


def times_of(closed: Sequence[ClosedSet]) -> ServiceTimes:
    """Fitted to all of some closed loops."""
    return service_times([run for one in closed for run in one.runs], PROMPTS)


def simulated(times: ServiceTimes, arrivals: Sequence[float]) -> dict[str, float]:
    """Percentiles when prompts are asked in their order: medians of REPEATS simulations with other draws of work."""
    prompts = [number % PROMPTS for number in range(len(arrivals))]
    runs = [percentiles(simulate(times.rates, times.draw(prompts, seed), arrivals)) for seed in range(REPEATS)]
    return {name: percentile([run[name] for run in runs], 50) for name in runs[0]}


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """In milliseconds."""
    return {f"p{percent}": significant(percentile(seconds, percent) * 1000) for percent in PERCENTS}


def curve(times: ServiceTimes, capacity: float) -> list[dict[str, float]]:
    """Simulated p50 and p95 in milliseconds by arrival rate, up to 95 % of the capacity."""
    points = []
    for load in CURVE_LOADS:
        found = simulated(times, exact_schedule(load * capacity, CURVE_SECONDS))
        points.append({"rate": significant(load * capacity), "p50_ms": found["p50"], "p95_ms": found["p95"]})
    return points


def cost(
    points: Sequence[Mapping[str, float]], target_ms: float, per_day: int, peak: float, price_per_hour: float
) -> dict[str, float]:
    """Replicas that keep the p95 within ``target_ms`` in the busiest hour, requests being spread at random over them.

    Args:
        points: of :func:`curve`.
        peak: how much busier than the average that hour is.

    Raises:
        ValueError: the target is below what the least load takes.
    """
    p95s = np.maximum.accumulate([point["p95_ms"] for point in points])
    if target_ms < p95s[0]:
        raise ValueError(f"--target-ms {target_ms:g}: an idle replica has a p95 of {p95s[0]:.0f} ms; give more")
    rate = float(np.interp(target_ms, p95s, [point["rate"] for point in points]))
    replicas = math.ceil(per_day / DAY_S * peak / rate)
    return {
        "average_rate": significant(per_day / DAY_S),
        "peak_rate": significant(per_day / DAY_S * peak),
        "replica_rate": significant(rate),
        "replicas": replicas,
        "price_per_month": significant(replicas * price_per_hour * MONTH_H),
        "price_per_million": significant(replicas * price_per_hour * 24 * 1_000_000 / per_day),
    }


def result_json(closed: Sequence[ClosedSet], opened: Sequence[OpenRun]) -> dict[str, Any]:
    """All but the cost."""
    clients = [run.clients for run in closed[0].runs]
    rates = [Spread.of([one.runs[place].rate for one in closed]).as_json() for place in range(len(clients))]
    capacity = Spread.of([one.capacity for one in closed])
    tokens = [timing.tokens for one in closed for closed_run in one.runs for timing in closed_run.run.good]
    return {
        "closed_loop": [
            {"clients": count, "requests_per_second": rate} for count, rate in zip(clients, rates, strict=True)
        ],
        "capacity": capacity.as_json(),
        "tokens_per_request": significant(sum(tokens) / len(tokens)),
        "cores": {name: round(sum(one.cores[name] for one in closed) / len(closed), 2) for name in closed[0].cores},
        "check": [check(closed[number], run, closed[number + 1]) for number, run in enumerate(opened)],
        "curve": curve(times_of(closed), capacity.median),
    }


def show(result: Mapping[str, Any]) -> None:
    """The result as tables."""
    report.table(
        "closed loops, all rounds",
        ("clients", "requests/s", "p10", "p90"),
        [
            (str(point["clients"]), *(point["requests_per_second"][name] for name in ("median", "p10", "p90")))
            for point in result["closed_loop"]
        ],
    )
    cores = sorted(result["cores"].items(), key=lambda item: -item[1])
    report.table("busy cores meanwhile", ("", "cores"), [(name, used) for name, used in cores if used >= 0.01])
    report.table(
        "open loops, measured and simulated (ms)",
        (
            "load",
            "requests/s",
            "p50",
            "simulated",
            "difference %",
            "p95",
            "simulated",
            "difference %",
            "errors",
            "busy by others",
        ),
        [
            (
                f"{point['load']:.0%}",
                point["rate"],
                *(
                    value
                    for name in ("p50", "p95")
                    for value in (
                        point["measured_ms"][name],
                        point["simulated_ms"][name],
                        point["difference"][name] * 100,
                    )
                ),
                point["errors"],
                point["cores"].get(OTHERS, 0.0),
            )
            for point in result["check"]
        ],
    )
    settings, found = result["settings"], result["cost"]
    report.console.print(
        f"{settings['per_day']:,} prompts a day, the busiest hour {settings['peak']:g} times the average: "
        f"{found['peak_rate']} requests/s. A replica serves {found['replica_rate']} with p95 within "
        f"{settings['target_ms']:g} ms: {found['replicas']} replicas, {found['price_per_month']:g} a month at "
        f"{settings['price_per_hour']:g} an hour (your figure, not ours).",
        highlight=False,
    )


def plot(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Latency by arrival rate, and the spread of latencies at each load: simulated lines, measured points."""
    figure, (left, right) = figure_of(2, "Simulated from service times, and measured", subtitle_of(result))
    points, checks = result["curve"], result["check"]
    for number, name in enumerate(("p50", "p95")):
        rates = [point["rate"] for point in points]
        left.plot(rates, [point[f"{name}_ms"] for point in points], color=COLORS[number], label=f"{name}, simulated")
        measured = [point["measured_ms"][name] for point in checks]
        left.plot(
            [point["rate"] for point in checks],
            measured,
            "o",
            color=COLORS[number],
            label=f"{name}, measured",
            zorder=3,
        )
    left.axhline(result["settings"]["target_ms"], color="#94a3b8", linestyle=":", label="target of the p95")
    left.set_xlabel("requests per second")
    for number, point in enumerate(checks):
        for kind, style in (("simulated", "-"), ("measured", "o")):
            values = [point[f"{kind}_ms"][f"p{percent}"] for percent in PERCENTS]
            right.plot(PERCENTS, values, style, color=COLORS[number], label=f"{point['load']:.0%}, {kind}")
    right.set_xlabel("percentile of the requests (load as a share of the capacity)")
    for axis in (left, right):
        axis.set_ylabel("whole request (ms)")
        axis.set_yscale("log")
        axis.legend(frameon=False, fontsize=8)
    return [save(figure, folder / "capacity.png")]
