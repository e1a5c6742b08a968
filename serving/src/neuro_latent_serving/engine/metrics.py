"""What the engine counts."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any


def _metric(kind: str, name: str, description: str, default: float = 0) -> Any:
    return field(default=default, metadata={"kind": kind, "name": f"neuro_latent_{name}", "description": description})


@dataclass
class EngineMetrics:
    """Totals since the engine started, and what is going on now, with the names and descriptions of ``/metrics``.

    ``first_token_seconds`` are from arrival to the first token, of the latest requests; whoever reports them takes them
    out. ``tokens / rows`` is what drafts gain. Seconds of requests are summed over those that got slots: two in one
    step of 5 ms have 10 ms.
    """

    tokens: int = _metric("COUNTER", "tokens_total", "Tokens written")
    steps: int = _metric("COUNTER", "steps_total", "Runs of the decoder step")
    rows: int = _metric("COUNTER", "step_rows_total", "Texts that took part, summed over the steps")
    step_seconds: float = _metric("COUNTER", "step_seconds_total", "Seconds spent in the decoder step", 0.0)
    encode_seconds: float = _metric(
        "COUNTER", "request_encode_seconds_total", "Seconds of requests from the tokenizer to the engine", 0.0
    )
    queue_seconds: float = _metric(
        "COUNTER", "request_queue_seconds_total", "Seconds of requests that waited for their slots", 0.0
    )
    prefill_seconds: float = _metric(
        "COUNTER", "request_prefill_seconds_total", "Seconds of requests in their own prefill", 0.0
    )
    decode_seconds: float = _metric(
        "COUNTER", "request_decode_seconds_total", "Seconds of requests in decoder steps", 0.0
    )
    text_seconds: float = _metric(
        "COUNTER", "request_text_seconds_total", "Seconds of requests before and after steps: drafts, texts, guard", 0.0
    )
    request_seconds: float = _metric(
        "COUNTER", "request_seconds_total", "Seconds of requests in the engine, from arrival to end", 0.0
    )
    drafted: int = _metric("COUNTER", "draft_tokens_total", "Tokens copied as drafts")
    accepted: int = _metric("COUNTER", "accepted_draft_tokens_total", "Draft tokens that the model agreed with")
    prefills: int = _metric("COUNTER", "requests_started_total", "Requests that got their slots")
    cached: int = _metric("COUNTER", "cache_hits_total", "Requests answered as the same request was answered before")
    refused: int = _metric("COUNTER", "requests_refused_total", "Requests that found the queue full")
    cancelled: int = _metric("COUNTER", "requests_cancelled_total", "Requests that their callers cancelled")
    overdue: int = _metric("COUNTER", "requests_overdue_total", "Requests that their deadline ended")
    unchanged: int = _metric("COUNTER", "unchanged_total", "Answers to which the model added nothing")
    withheld_by_gate: int = _metric(
        "COUNTER", "withheld_by_gate_total", "Texts not served because the model was not sure enough"
    )
    withheld_by_guard: int = _metric("COUNTER", "withheld_by_guard_total", "Texts not served because they broke a rule")
    slots_used: int = _metric("GAUGE", "slots_in_use", "Texts that decode now")
    waiting: int = _metric("GAUGE", "queue_length", "Requests that wait for a slot")
    first_token_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=10_000))
