"""The engine's counters at Triton's ``/metrics``."""

from typing import Any

import triton_python_backend_utils as pb_utils

from neuro_latent_serving.engine.metrics import EngineMetrics

FIRST_TOKEN_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

COUNTERS = {
    "tokens": ("tokens_total", "Tokens written"),
    "steps": ("steps_total", "Runs of the decoder step"),
    "rows": ("step_rows_total", "Texts that took part, summed over the steps"),
    "step_seconds": ("step_seconds_total", "Seconds spent in the decoder step"),
    "drafted": ("draft_tokens_total", "Tokens copied as drafts"),
    "accepted": ("accepted_draft_tokens_total", "Draft tokens that the model agreed with"),
    "prefills": ("requests_started_total", "Requests that got their slots"),
    "refused": ("requests_refused_total", "Requests that found the queue full"),
    "cancelled": ("requests_cancelled_total", "Requests that their callers cancelled"),
    "overdue": ("requests_overdue_total", "Requests that their deadline ended"),
    "unchanged": ("unchanged_total", "Answers to which the model added nothing"),
    "withheld_by_gate": ("withheld_by_gate_total", "Texts not served because the model was not sure enough"),
    "withheld_by_guard": ("withheld_by_guard_total", "Texts not served because they broke a rule"),
}
"""Name in :class:`EngineMetrics` -> name and help at ``/metrics``."""


class EngineReport:
    """Hands an engine's counters to Triton. Used by one thread.

    Args:
        metrics: of the engine.
        slots: that it has.
        version: the label ``model_version`` of every metric.
    """

    def __init__(self, metrics: EngineMetrics, slots: int, version: str) -> None:
        self._metrics = metrics
        self._labels = {"model_version": version}
        self._families: list[Any] = []  # Triton drops a metric whose family is gone
        counter, gauge = pb_utils.MetricFamily.COUNTER, pb_utils.MetricFamily.GAUGE
        self._counters = {name: self._metric(counter, *texts) for name, texts in COUNTERS.items()}
        self._published: dict[str, float] = dict.fromkeys(COUNTERS, 0)
        self._gauges = {
            "slots_used": self._metric(gauge, "slots_in_use", "Texts that decode now"),
            "waiting": self._metric(gauge, "queue_length", "Requests that wait for a slot"),
        }
        self._metric(gauge, "slots", "Texts that can decode together").set(slots)
        self._per_step = self._metric(gauge, "tokens_per_step", "Tokens a step and text lately; above 1 by drafts")
        self._acceptance = self._metric(gauge, "draft_acceptance", "Share of draft tokens accepted lately")
        self._first_token = self._metric(
            pb_utils.MetricFamily.HISTOGRAM,
            "time_to_first_token_seconds",
            "From a request's arrival at the decoder to its first token",
            buckets=list(FIRST_TOKEN_BUCKETS_S),
        )

    def _metric(self, kind: Any, name: str, description: str, **settings: Any) -> Any:
        family = pb_utils.MetricFamily(name=f"neuro_latent_{name}", description=description, kind=kind)
        self._families.append(family)
        return family.Metric(labels=self._labels, **settings)

    def publish(self) -> None:
        """Tell Triton what is new."""
        new = {}
        for name, metric in self._counters.items():
            total = getattr(self._metrics, name)
            new[name] = total - self._published[name]
            if new[name]:
                metric.increment(new[name])
                self._published[name] = total
        for name, metric in self._gauges.items():
            metric.set(getattr(self._metrics, name))
        if new["rows"]:
            self._per_step.set(new["tokens"] / new["rows"])
        if new["drafted"]:
            self._acceptance.set(new["accepted"] / new["drafted"])
        while self._metrics.first_token_seconds:
            self._first_token.observe(self._metrics.first_token_seconds.popleft())
