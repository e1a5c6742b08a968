"""The engine's counters at Triton's ``/metrics``."""

from dataclasses import fields
from typing import Any

import triton_python_backend_utils as pb_utils

from neuro_latent_serving.engine.metrics import EngineMetrics

FIRST_TOKEN_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


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
        known = [field for field in fields(metrics) if field.metadata]
        self._counters = {f.name: self._metric(**f.metadata) for f in known if f.metadata["kind"] == "COUNTER"}
        self._gauges = {f.name: self._metric(**f.metadata) for f in known if f.metadata["kind"] == "GAUGE"}
        self._published: dict[str, float] = dict.fromkeys(self._counters, 0)
        self._metric("GAUGE", "neuro_latent_slots", "Texts that can decode together").set(slots)
        self._per_step = self._metric(
            "GAUGE", "neuro_latent_tokens_per_step", "Tokens a step and text lately; above 1 by drafts"
        )
        self._acceptance = self._metric(
            "GAUGE", "neuro_latent_draft_acceptance", "Share of draft tokens accepted lately"
        )
        self._first_token = self._metric(
            "HISTOGRAM",
            "neuro_latent_time_to_first_token_seconds",
            "From a request's arrival at the decoder to its first token",
            buckets=list(FIRST_TOKEN_BUCKETS_S),
        )

    def _metric(self, kind: str, name: str, description: str, **settings: Any) -> Any:
        family = pb_utils.MetricFamily(name=name, description=description, kind=getattr(pb_utils.MetricFamily, kind))
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
