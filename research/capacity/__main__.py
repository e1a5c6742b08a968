"""``python -m research.capacity``: how many requests a machine serves, and what a day of them costs."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from neuro_latent_benchmarks import report
from neuro_latent_benchmarks.cli import Json, Plot, Quick, finish, session


def capacity(
    repository: Annotated[Path, typer.Option(help="An exported repository, as for `neuro-latent serve`.")],
    loads: Annotated[
        str, typer.Option(help="Arrival rates to check at, in percent of what the closed loops reached.")
    ] = "50,80,95",
    seconds: Annotated[float, typer.Option(help="Of each open loop.", min=1)] = 45.0,
    per_day: Annotated[int, typer.Option(help="Prompts a day to plan for.", min=1)] = 1_000_000,
    peak: Annotated[float, typer.Option(help="The busiest hour's rate, as a multiple of the average.", min=1)] = 3.0,
    target_ms: Annotated[float, typer.Option(help="Of the p95 of whole requests in that hour.", min=1)] = 300.0,
    price_per_hour: Annotated[
        float, typer.Option(help="Of one machine like this; an assumption: put in your own.", min=0)
    ] = 0.10,
    quick: Quick = False,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Measure service times in closed loops on a real Triton, simulate open loops from them, check them against real
    ones, and say how many replicas a day's prompts need. About five minutes; without caches; keep the machine idle.

      python -m research.capacity --repository repository --per-day 1000000 --price-per-hour 0.10 --plot plots
    """
    with session():
        from research.capacity import measure, results

        try:
            shares = tuple(float(load) / 100 for load in loads.split(","))
        except ValueError:
            raise typer.BadParameter(f"--loads {loads}: numbers separated by commas, as 50,80") from None
        if not all(0 < share < 1 for share in shares):
            raise typer.BadParameter(f"--loads {loads}: above 0 and below 100; at 100 % the queue grows without end")
        config = measure.CapacityConfig(shares, seconds)
        config = config.quick() if quick else config
        plan = {"per_day": per_day, "peak": peak, "target_ms": target_ms, "price_per_hour": price_per_hour}
        result = report.heading("capacity", {"repository": str(repository), **dataclasses.asdict(config), **plan})
        result |= results.result_json(*measure.measure(repository, config))
        result["cost"] = results.cost(result["curve"], target_ms, per_day, peak, price_per_hour)
        results.show(result)
        finish(result, results.plot, plot, as_json)


if __name__ == "__main__":
    typer.run(capacity)
