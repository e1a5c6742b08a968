"""The decoder on a device against the one on the CPU: the same tokens in every mode, whoever joins and leaves."""

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import pytest

from neuro_latent_serving.engine import Engine
from neuro_latent_serving.engine.device.onnx import OnnxRuntime
from tests.gpu.conftest import StartOnDevice
from tests.unit.serving.askers import Asker
from tests.unit.serving.conftest import PROMPTS
from tests.unit.serving.test_token_identity import MODES, together

REQUESTS = [(PROMPTS[i * 5 % len(PROMPTS)], mode) for i, mode in enumerate([*MODES.values(), {}, {}])]


@pytest.mark.parametrize("slots", [6, 40])
def test_texts_are_those_of_the_cpu_whoever_writes_beside_them(
    start: Callable[..., Engine], start_on_device: StartOnDevice, ask: Callable[..., Asker], slots: int
) -> None:
    """Greedy with drafts, sampled, beams; prompts and texts of all lengths, so that rows join, leave, move and grow."""
    rng = np.random.default_rng(slots)
    askers = [[ask(text, padding=int(rng.integers(0, 60)), **mode) for text, mode in REQUESTS] for _ in range(2)]
    engine, decoder = start_on_device(slots=slots)
    order = rng.permutation(len(REQUESTS)).tolist()
    found = together(engine, [askers[0][i] for i in order])
    want = together(start(slots=slots), askers[1])
    for i, answer in zip(order, found, strict=True):
        assert answer == want[i], REQUESTS[i]
    assert decoder.cache.seen_columns > 64, "no text was long enough for the columns to grow"


def test_drafts_of_every_width_give_the_same_text(
    start_on_device: StartOnDevice, ask: Callable[..., Asker], optimizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, widths = np.random.default_rng(0), set[int]()

    def any_width(drafts: list[Any], rows: int, most: int, cost: Any) -> int:
        longest = max((len(draft.tokens) for draft in drafts), default=0)
        widths.add(width := int(rng.integers(1, 2 + min(longest, most - 1))))
        return width

    monkeypatch.setattr("neuro_latent_serving.engine.loop.best_width", any_width)
    engine, _ = start_on_device(slots=5)
    found = together(engine, [ask(prompt, max_length=150) for prompt in PROMPTS[:6]])
    assert [text for ((text, _, _),) in found] == optimizer.generate(PROMPTS[:6], 150)
    assert widths == set(range(1, 9))


def test_many_requests_leave_no_memory_behind(
    start_on_device: StartOnDevice, ask: Callable[..., Asker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without CUDA graphs: each new shape would leave one behind, and which there are is a matter of time."""
    engine, decoder = start_on_device(cuda_graphs=False, slots=8)
    blocks, zeros = list[int](), decoder._runtime.zeros

    def counted(shape: tuple[int, ...], dtype: Any) -> Any:
        if dtype is np.uint8 and np.prod(shape) > 2**16:  # the rows themselves
            blocks.extend(shape)
        return zeros(shape, dtype)

    monkeypatch.setattr(decoder._runtime, "zeros", counted)
    modes: list[dict[str, Any]] = [{}, {"temperature": 1.0, "seed": 1}, {"num_beams": 3}, {"cancel_after": 1}]

    def answer(count: int) -> tuple[int, int]:
        askers = [ask(PROMPTS[i % 12], max_length=1 + i % 7, **modes[i % 4]) for i in range(count)]
        for asker in askers:
            engine.submit(asker.request)
        for asker in askers:
            assert asker.wait().ends == [None]
        del askers, asker
        gc.collect()
        return len(blocks), psutil.Process().memory_info().rss

    answer(100)
    blocks_before, before = answer(100)
    for _ in range(4):
        blocks_after, after = answer(100)
    assert blocks_after == blocks_before
    assert after - before < 8 * 2**20, f"{(after - before) / 2**20:.1f} MiB more"


@pytest.mark.parametrize("device", ["cpu", "cuda"], indirect=True)
def test_graphs_that_cannot_be_captured_run_without(
    start_on_device: StartOnDevice,
    ask: Callable[..., Asker],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bound = OnnxRuntime._bound

    def fail_captures(self: OnnxRuntime, session: Any, tensors: Any, graph_id: str | None) -> Callable[[], None]:
        run = bound(self, session, tensors, graph_id)
        return (lambda: 1 // 0) if graph_id not in (None, "-1") else run  # type: ignore[return-value]

    want = together(start_on_device()[0], [ask(PROMPTS[0])])
    monkeypatch.setattr(OnnxRuntime, "_bound", fail_captures)
    engine, _ = start_on_device()
    assert together(engine, [ask(PROMPTS[0])]) == want
    assert together(engine, [ask(PROMPTS[1], num_beams=2), ask(PROMPTS[0])])[1:] == want
    assert [record.message for record in caplog.records] == [
        f"the {graph} cannot be captured as a CUDA graph and runs without: integer division or modulo by zero"
        for graph in ("prefill", "step")
    ]
