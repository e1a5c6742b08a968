"""The parts of a request, by made-up statistics of Triton and of the engine."""

from typing import Any

import pytest

from neuro_latent_benchmarks import metrics, plots, trace
from neuro_latent_benchmarks.load import LoadRun, RequestTiming
from neuro_latent_benchmarks.report import BenchError
from tests.pictures import HEAD, check

STEPS = ["tokenizer", "encoder", "t5_decoder_unary"]
PAGE = """# HELP neuro_latent_request_seconds_total Seconds of requests in the engine
neuro_latent_request_seconds_total{model_version="a"} 0.040
neuro_latent_request_encode_seconds_total{model_version="a"} 0.020
neuro_latent_request_queue_seconds_total{model_version="a"} 0.002
neuro_latent_request_prefill_seconds_total{model_version="a"} 0.004
neuro_latent_request_decode_seconds_total{model_version="a"} 0.028
neuro_latent_request_text_seconds_total{model_version="a"} 0.003
neuro_latent_time_to_first_token_seconds_count{model_version="a"} 2
"""


def statistics(**models: tuple[float, float]) -> dict[str, Any]:
    """Triton's document, of milliseconds in all and in the queue."""
    return {
        "model_stats": [
            {
                "name": name,
                "inference_stats": {
                    "success": {"count": 2, "ns": whole * 1e6},
                    "queue": {"count": 2, "ns": queue * 1e6},
                    "compute_infer": {"count": 2, "ns": 1},
                },
            }
            for name, (whole, queue) in models.items()
        ]
    }


AFTER = trace.model_ms(
    statistics(neuro_latent_optimizer=(80, 0), tokenizer=(5, 1), encoder=(10, 2), t5_decoder_unary=(1, 0.5))
) | trace.engine_ms(metrics.parse(PAGE))
FOUND = trace.waterfall(STEPS, [trace.Round(dict.fromkeys(AFTER, 0.0), AFTER, [40.0, 60.0], [52.0, 60.0])])


def test_the_parts_are_what_the_client_waits_for() -> None:
    parts = {part["part"]: part["ms"] for part in FOUND["parts"]}
    assert parts == {
        "gateway": 6.0,
        "client and gRPC": 10.0,
        "waiting in Triton": 1.75,
        "tokenizer": 2.0,
        "encoder": 4.0,
        "between models": 2.75,
        "waiting for a slot": 1.0,
        "prefill": 2.0,
        "others' prefill": 1.5,
        "steps": 14.0,
        "drafts, texts, guard": 1.5,
        "back from the engine": 9.5,
    }
    assert sum(parts.values()) - parts["gateway"] == pytest.approx(FOUND["mean_ms"])
    assert (FOUND["mean_ms"], FOUND["gateway_median_ms"], FOUND["requests"]) == (50.0, 56.0, 2)


def test_only_what_happened_between_the_readings_counts() -> None:
    doubled = {place: 2 * ms for place, ms in AFTER.items()}
    assert trace.waterfall(STEPS, [trace.Round(AFTER, doubled, [40.0, 60.0], [52.0, 60.0])]) == FOUND


def test_a_round_in_which_the_machine_stood_still_does_not_count() -> None:
    usual = trace.Round(dict.fromkeys(AFTER, 0.0), AFTER, [40.0, 60.0], [52.0, 60.0])
    still = trace.Round(usual.before, {place: 9 * ms for place, ms in AFTER.items()}, [40.0, 9000.0], [52.0, 60.0])
    assert trace.waterfall(STEPS, [usual, still, usual])["parts"] == FOUND["parts"]


def test_it_can_be_drawn_and_shown(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    result = HEAD | {"waterfalls": [{"clients": 1, **FOUND}, {"clients": 16, **FOUND}]}
    check(plots.trace(result, tmp_path))
    trace.show(result)


def test_a_request_that_failed_is_told_and_not_measured() -> None:
    failed = LoadRun((RequestTiming(0, 1, 1, 5), RequestTiming(0, 1, 1, 0, "ServerBusyError: too busy")), 1)
    with pytest.raises(BenchError, match="too busy"):
        trace.answered(failed)
