"""Closed and open loops on a client that is made up, and what is made of a run."""

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from neuro_latent_benchmarks import load, metrics, serve
from neuro_latent_client import ServerUnavailableError

ANSWER = SimpleNamespace(sequences=[SimpleNamespace(generated_tokens=5)])


class FakeStream:
    def __enter__(self) -> "FakeStream":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Iterator[str]:
        yield "a"
        time.sleep(0.01)
        yield "b"

    result = ANSWER


class FakeClient:
    """Answers at once; a prompt "bad" is refused, "slow" takes 50 ms."""

    def __init__(self, url: str, retries: int) -> None:
        assert url == "grpc://here"

    def __enter__(self) -> "FakeClient":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def health(self) -> None:
        pass

    def optimize(self, prompt: str, *, max_length: int, timeout: float) -> Any:
        if prompt == "bad":
            raise ServerUnavailableError("too busy")
        if prompt == "slow":
            time.sleep(0.05)
        return ANSWER

    def stream(self, prompt: str, *, max_length: int, timeout: float) -> FakeStream:
        return FakeStream()


@pytest.fixture(autouse=True)
def _fake_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "Client", FakeClient)


def test_a_closed_loop_asks_everything_once() -> None:
    run = load.closed_loop("grpc://here", [("good", 5)] * 6 + [("bad", 5)], clients=3, seconds=0, stream=False)
    assert len(run.timings) == 7
    assert run.tokens == 30
    (bad,) = [timing for timing in run.timings if timing.error]
    assert "too busy" in bad.error
    point = serve.run_json(run)
    assert (point["requests"], point["errors"]) == (7, 1)
    assert point["tokens_per_second"] == pytest.approx(30 / run.seconds, rel=1e-3)


def test_a_closed_loop_goes_on_for_its_time() -> None:
    run = load.closed_loop("grpc://here", [("slow", 5)], clients=2, seconds=0.2, stream=False)
    assert len(run.timings) >= 4
    assert run.seconds >= 0.2


def test_a_stream_has_its_first_piece_before_its_end() -> None:
    run = load.closed_loop("grpc://here", [("good", 5)], clients=1, seconds=0, stream=True)
    (timing,) = run.timings
    assert timing.start <= timing.first < timing.end
    point = serve.run_json(run)
    assert point["first_piece_ms"]["p50"] < point["latency_ms"]["p50"]
    assert point["token_ms"]["p50"] >= 10 / 4 - 0.1


def test_an_open_loop_counts_from_when_a_request_was_due() -> None:
    run = load.open_loop("grpc://here", [("slow", 5)], [0.0, 0.01, 0.02], stream=False)
    assert [timing.start for timing in run.timings] == [0.0, 0.01, 0.02]
    assert all(timing.end - timing.start >= 0.05 for timing in run.timings)
    assert run.seconds < 0.12, "requests did not overlap"


def test_a_run_without_any_answer_tells_the_error() -> None:
    point = serve.run_json(load.closed_loop("grpc://here", [("bad", 5)], clients=1, seconds=0, stream=False))
    assert point["errors"] == 1
    assert "too busy" in point["first_error"]
    assert "latency_ms" not in point


PAGE = """# HELP neuro_latent_steps_total Runs of the step graph
neuro_latent_steps_total{model_version="a"} 100
neuro_latent_step_rows_total{model_version="a"} 400
neuro_latent_tokens_total{model_version="a"} 600
neuro_latent_step_seconds_total{model_version="a"} 0.5
nv_inference_count{model="x"} 9
"""


def test_the_servers_counters_say_how_full_its_steps_were() -> None:
    after = metrics.parse(PAGE)
    assert after == {"steps": 100, "step_rows": 400, "tokens": 600, "step_seconds": 0.5}
    found = metrics.between({}, after, 1.0)
    assert found == {"rows_per_step": 4.0, "tokens_per_row": 1.5, "step_ms": 5.0, "stepping": 0.5}
    assert metrics.between(after, after, 1.0) == {}


def test_the_first_request_is_compared_with_the_tenth_by_medians() -> None:
    runs = [[first, *[8.0] * 8, tenth] for first, tenth in ((20.0, 10.0), (12.0, 10.0), (10.0, 8.0))]
    found = serve.first_json(runs)
    assert found == {"first_ms": 12.0, "tenth_ms": 10.0, "first_over_tenth": 1.2, "starts": 3}
