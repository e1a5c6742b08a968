"""What the served engine did meanwhile, by the server's own Prometheus counters."""

import re
import urllib.request
from collections.abc import Mapping

from neuro_latent_benchmarks.statistics import significant

NAMES = ("steps", "step_rows", "tokens", "step_seconds", "draft_tokens", "accepted_draft_tokens")
REQUEST_PARTS = ("encode", "queue", "prefill", "decode", "text")
REQUEST_SECONDS = ("request_seconds", *(f"request_{part}_seconds" for part in REQUEST_PARTS))
TIMEOUT_S = 10.0


def counters(metrics_url: str) -> dict[str, float]:
    """The engine's totals now; those that the server does not have are left out."""
    with urllib.request.urlopen(metrics_url, timeout=TIMEOUT_S) as answer:
        return parse(answer.read().decode())


def parse(text: str) -> dict[str, float]:
    """The engine's totals in a Prometheus page, over all model versions."""
    found: dict[str, float] = {}
    for name, value in re.findall(r"^neuro_latent_(\w+?)_total(?:\{[^}]*\})? (\S+)$", text, re.MULTILINE):
        if name in NAMES or name in REQUEST_SECONDS:
            found[name] = found.get(name, 0.0) + float(value)
    return found


def between(before: Mapping[str, float], after: Mapping[str, float], seconds: float) -> dict[str, float]:
    """What happened in ``seconds``; empty where there was no step.

    Returns:
        rows_per_step: texts that were decoded together, on average.
        tokens_per_row: of a row in a step; above 1 where drafts were right.
        step_ms: of the step graph.
        stepping: share of the time that the engine was in the step graph.
    """
    done = {name: after[name] - before.get(name, 0.0) for name in after}
    if not done.get("steps") or not done.get("step_rows"):
        return {}
    return {
        "rows_per_step": significant(done["step_rows"] / done["steps"], 3),
        "tokens_per_row": significant(done["tokens"] / done["step_rows"], 3),
        "step_ms": significant(done["step_seconds"] / done["steps"] * 1000),
        "stepping": significant(done["step_seconds"] / seconds, 3),
    }
