"""The result of a comparison as JSON, and as tables."""

from collections.abc import Mapping
from typing import Any

from neuro_latent_benchmarks import report
from research.baselines.batching import OURS as OURS_SERVED
from research.baselines.compare import identical_tokens, ratio
from research.baselines.systems import BASELINES, CT2_INT8, HF, OURS, PLAIN, TITLES


def result_json(
    scenarios: Mapping[str, Any],
    many_clients: Mapping[str, Any],
    threads: Mapping[str, int],
    left_out: Mapping[str, str],
) -> dict[str, Any]:
    """What the JSON line holds, below machine and settings.

    ``per_token_ms`` and ``call_ms`` are medians with one client; every spread is in ``scenarios``. Each of ``ratios``
    is a speed-up, their time over ours: above 1 ours is faster. The one-client ratios are without speculation, which
    guesses; ``*_speculating`` and the copy-heavy one are with it, as it is served. ``left_out`` has the baselines that
    could not be measured, and why.
    """
    one, copying = scenarios["one_client"], scenarios["copy_heavy"]
    return {
        "per_token_ms": {name: spread["median"] for name, spread in one["per_token_ms"].items()},
        "call_ms": {name: spread["median"] for name, spread in one["call_ms"].items()},
        "ratios": {
            "ct2_int8_one_client": ratio(one, CT2_INT8, PLAIN),
            "ct2_int8_one_client_speculating": ratio(one, CT2_INT8, OURS),
            "hf_eager_one_client": ratio(one, HF, PLAIN),
            "ct2_int8_copy_heavy": ratio(copying, CT2_INT8, OURS),
            "ct2_int8_static_batch_c16": many_clients["static_batching_speed_up"],
            "ct2_equal_work_c16": many_clients["equal_work_speed_up"],
        },
        "identical_tokens": identical_tokens(scenarios),
        "threads": dict(threads),
        "left_out": dict(left_out),
        "scenarios": dict(scenarios),
        "many_clients": dict(many_clients),
    }


def show(result: Mapping[str, Any]) -> None:
    """All of it as tables."""
    for scenario, title in (("one_client", "one client, varied text"), ("copy_heavy", "one client, copied text")):
        found = result["scenarios"][scenario]
        base = found["per_token_ms"][OURS]["median"]
        rows = [
            (
                TITLES[name],
                f"{spread['median']:.3f}",
                f"{spread['p10']:.3f}–{spread['p90']:.3f}",
                f"{found['call_ms'][name]['median']:.1f}",
                f"{spread['median'] / base:.2f}",
                result["threads"].get(name) if name in BASELINES else None,
            )
            for name, spread in found["per_token_ms"].items()
        ]
        title = f"{title} ({found['copied']:.0%} of the token pairs are the prompt's)"
        report.table(title, ("", "ms per token", "p10–p90", "whole call, ms", "× ours", "threads"), rows)
        same = [
            (pair, f"{share:.0%}", f"{found['same_start'][pair]:.0%}") for pair, share in found["identical"].items()
        ]
        report.table("who writes the same", ("", "texts identical", "tokens before the first difference"), same)
    for name, why in result["left_out"].items():
        report.console.print(f"left out: {TITLES[name]}: {why}", highlight=False)
    static = result["many_clients"]
    batched = [
        (name, f"{spread['median']:.0f}", f"{spread['p10']:.0f}–{spread['p90']:.0f}")
        for name, spread in static["tokens_per_second"].items()
    ]
    report.table(f"{result['settings']['clients']} clients, mixed lengths", ("", "useful tokens/s", "p10–p90"), batched)
    for kind in ("static_batching", "equal_work"):
        report.console.print(
            f"best that counts: {static[f'best_{kind}']}; {OURS_SERVED} is {static[f'{kind}_speed_up']:.2f}x",
            highlight=False,
        )
    if engine := static.get("engine"):
        report.console.print(", ".join(f"{name} {value:g}" for name, value in engine.items()), highlight=False)
    ratios = [(name, f"{value:.2f}") for name, value in result["ratios"].items()]
    report.table("speed-ups (their time over ours)", ("", "×"), ratios)
