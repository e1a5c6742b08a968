"""What perf_analyzer wrote, and what it did not."""

from pathlib import Path

import pytest

from neuro_latent_benchmarks import perf_analyzer
from neuro_latent_benchmarks.report import BenchError


def test_requests_without_an_answer_are_counted_apart() -> None:
    answered = [{"timestamp": 0, "response_timestamps": [1_000_000, 4_000_000]}]
    failed = [{"timestamp": 0, "response_timestamps": []}]
    found = perf_analyzer.figures({"experiments": [{"requests": [*failed, *answered]}]})
    assert (found["requests"], found["failed"]) == (1, 1)
    assert found["requests_per_second"] == 250
    assert (found["first_response_ms"]["p50"], found["latency_ms"]["p50"]) == (1, 4)
    with pytest.raises(BenchError, match="none of 1 requests was answered"):
        perf_analyzer.figures({"experiments": [{"requests": failed}]})


def test_a_run_without_an_end_says_what_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perf_analyzer, "TIMEOUT_S", 0.0)
    with pytest.raises(BenchError, match="lower --requests"):
        perf_analyzer.run(Path("/bin/sleep"), ["infinity"])
