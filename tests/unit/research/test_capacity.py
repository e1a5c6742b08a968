"""The simulation against results of queueing theory, and service times against those that made the load."""

import random
from pathlib import Path

import numpy as np
import pytest
import simpy

from neuro_latent_benchmarks.load import LoadRun, RequestTiming
from neuro_latent_benchmarks.statistics import poisson_schedule
from research.capacity import measure, results
from research.capacity.service_times import ClosedRun, service_times
from research.capacity.simulation import Server, simulate
from tests import pictures


def test_requests_share_the_server_equally() -> None:
    """Two units of work that come half a second apart: alone, together, alone."""
    assert simulate(lambda encoding, decoding: (1.0, 1.0), [(1, 0), (1, 0)], [0.0, 0.5]) == pytest.approx([1.5, 1.5])


def test_phases_slow_each_other_down_as_the_rates_say() -> None:
    """The second is encoded at half the rate while the first is decoded, and the other way round."""

    def rates(encoding: int, decoding: int) -> tuple[float, float]:
        return (0.5, 0.5) if encoding and decoding else (1.0, 1.0)

    assert simulate(rates, [(1, 1), (1, 1)], [0.0, 1.0]) == pytest.approx([3.0, 3.0])


@pytest.mark.parametrize("work", ["exponential", "all the same"])
def test_mean_time_of_processor_sharing(work: str) -> None:
    """M/M/1 and M/D/1 with processor sharing: S / (1 - load) in both, for it does not depend on the spread."""
    arrivals = poisson_schedule(0.6, 30_000, seed=1)
    numbers = random.Random(2)
    works = [(numbers.expovariate(1) if work == "exponential" else 1.0, 0.0) for _ in arrivals]
    assert np.mean(simulate(lambda *_: (1.0, 1.0), works, arrivals)) == pytest.approx(1 / (1 - 0.6), rel=0.05)


def test_service_times_are_those_that_made_the_load() -> None:
    """Closed loops on a simulated server with known work and rates give rates and works back."""
    numbers = random.Random(3)
    works = [(numbers.uniform(0.8, 1.2), numbers.expovariate(1)) for _ in range(32)]

    def rates(encoding: int, decoding: int) -> tuple[float, float]:
        return 50 / (1 + 0.5 * min(decoding, 4)), 30 * min(1 + 0.1 * decoding, 2) / (1 + (encoding > 0))

    runs = [
        ClosedRun(closed_loop(rates, works, clients, 300), clients, 0, 0.0) for clients in (1, 2, 3, 4, 6, 8, 12, 16)
    ]
    found = service_times(runs, len(works))
    arrivals = poisson_schedule(12, 100, seed=4)
    prompts = [number % len(works) for number in range(len(arrivals))]
    expected = simulate(rates, [works[prompt] for prompt in prompts], arrivals)
    simulated = simulate(found.rates, found.draw(prompts, seed=5), arrivals)
    for percent in (50, 95):
        assert np.percentile(simulated, percent) == pytest.approx(np.percentile(expected, percent), rel=0.1)


def test_replicas_and_price_follow_from_the_rate_within_the_target() -> None:
    points = [{"rate": 10.0, "p95_ms": 100.0}, {"rate": 20.0, "p95_ms": 300.0}]
    found = results.cost(points, target_ms=200, per_day=864_000, peak=3, price_per_hour=0.1)
    assert (found["average_rate"], found["replica_rate"], found["replicas"]) == (10, 15, 2)
    assert found["price_per_month"] == pytest.approx(2 * 0.1 * 730)
    assert found["price_per_million"] == pytest.approx(2 * 0.1 * 24 / 0.864, rel=1e-3)
    with pytest.raises(ValueError, match=r"--target-ms 50: .*100 ms"):
        results.cost(points, 50, 864_000, 3, 0.1)


def test_a_measurement_becomes_json_tables_and_a_picture(tmp_path: Path) -> None:
    """Of a simulated server: the open loop is simulated within the 20 % that is asked for."""

    def rates(encoding: int, decoding: int) -> tuple[float, float]:
        return 60.0, 40.0

    works = [(1.0, 1.0)] * measure.PROMPTS
    runs = [ClosedRun(closed_loop(rates, works, clients, 150), clients, 0, 5.0) for clients in (1, 4, 16)]
    closed = measure.ClosedSet(tuple(runs), {"load": 0.1})
    arrivals = measure.exact_schedule(20, 20)
    seconds = simulate(rates, works * 7, arrivals)
    timings = [RequestTiming(at, at, at + took, 1) for at, took in zip(arrivals, seconds, strict=True)]
    opened = measure.OpenRun(0.5, tuple(arrivals), LoadRun(tuple(timings), 20.0), {"load": 0.1})
    result = pictures.HEAD | results.result_json([closed, closed], [opened])
    plan = {"per_day": 10_000, "peak": 3.0, "target_ms": 500.0, "price_per_hour": 0.1}
    result |= {"settings": pictures.HEAD["settings"] | plan, "cost": results.cost(result["curve"], 500, 10_000, 3, 0.1)}
    assert abs(result["check"][0]["difference"]["p95"]) < 0.2
    results.show(result)
    pictures.check(results.plot(result, tmp_path))


def closed_loop(rates: object, works: list[tuple[float, float]], clients: int, requests: int) -> LoadRun:
    env = simpy.Environment()
    server = Server(env, rates)  # type: ignore[arg-type]
    queue, timings = iter(range(requests)), []

    def client():  # type: ignore[no-untyped-def]
        for number in queue:
            start, (encode, decode) = env.now, works[number % len(works)]
            yield server.serve(0, encode)
            first = env.now
            yield server.serve(1, decode)
            timings.append(RequestTiming(start, first, env.now, 1))

    for _ in range(clients):
        env.process(client())
    env.run()
    return LoadRun(tuple(timings), env.now)
