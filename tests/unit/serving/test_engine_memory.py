"""An engine that has answered thousands of requests holds what it held before."""

import gc
from collections.abc import Callable
from typing import Any

import psutil

from neuro_latent_serving.engine import Engine
from tests.unit.serving.askers import Asker
from tests.unit.serving.conftest import PROMPTS

WARM_UP, REQUESTS = 400, 2000
MODES: list[dict[str, Any]] = [
    {},
    {"temperature": 1.0, "top_k": 8, "seed": 1},
    {"temperature": 1.0, "top_p": 0.9, "seed": 2},
    {"num_beams": 2},
    {"deadline_ms": 1},
    {"cancel_after": 1},
]


def test_thousands_of_requests_leave_no_memory_file_or_thread_behind(
    start: Callable[..., Engine], ask: Callable[..., Asker]
) -> None:
    engine, process = start(queue=WARM_UP), psutil.Process()

    def answer(count: int) -> tuple[int, int, int]:
        for first in range(0, count, WARM_UP):
            askers = [
                ask(PROMPTS[i % len(PROMPTS)], max_length=1 + i % 5, **MODES[i % len(MODES)])
                for i in range(first, first + WARM_UP)
            ]
            for asker in askers:
                engine.submit(asker.request)
            for asker in askers:
                assert asker.wait().ends == [None]
        del asker, askers
        gc.collect()
        return process.memory_info().rss, process.num_fds(), process.num_threads()

    answer(WARM_UP)
    memory, files, threads = answer(WARM_UP)
    after = answer(REQUESTS)
    assert after[1:] == (files, threads)
    assert after[0] - memory < 8 * 2**20, f"{(after[0] - memory) / 2**20:.1f} MiB more"
    assert engine.load == (0, 0)
