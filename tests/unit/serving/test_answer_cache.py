"""Greedy answers that are given again: the same events, without a step, and never to another request."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from neuro_latent_core.form import Form
from neuro_latent_serving.byte_cache import OVERHEAD, ByteCache, digest
from neuro_latent_serving.engine.gate import GateOutput
from tests.unit.serving.test_scheduler import Bench

PROMPT = (5, 6, 7)


@pytest.fixture
def bench() -> Bench:
    return Bench(cache_bytes=2**20)


def ask(bench: Bench, *args: Any, **options: Any) -> tuple[list[Any], bool]:
    """The events of a request, and whether they say that nothing was decoded for it."""
    before = bench.loop.metrics.cached
    asker = bench.submit(*args, **options)
    bench.drain()
    assert asker.ends == [None]
    cached = {event.cached for event in asker.events}
    assert cached == {bench.loop.metrics.cached > before}
    return [replace(event, cached=False) for event in asker.events], cached == {True}


@pytest.mark.parametrize("options", [{}, {"form": "complement"}, {"num_beams": 3, "num_return_sequences": 2}])
def test_the_same_request_gets_the_same_events_without_a_step(bench: Bench, options: dict[str, Any]) -> None:
    events, cached = ask(bench, PROMPT, **options)
    steps = bench.loop.metrics.steps
    assert not cached
    assert ask(bench, PROMPT, **options) == (events, True)
    assert ask(bench, PROMPT, **options, seed=9, deadline_ms=10_000) == (events, True)
    assert bench.loop.metrics.steps == steps


def test_whatever_an_answer_depends_on_makes_another_request(bench: Bench) -> None:
    ask(bench, PROMPT)
    for others in (
        {"max_length": 3},
        {"form": "complement"},
        {"min_confidence": 0.1},
        {"num_beams": 2},
        {"padding": 2},
    ):
        assert not ask(bench, PROMPT, **others)[1], others
    for change in (
        {"hidden_QD": np.array([[5.0], [6.0], [8.0]], np.float32)},
        {"gate": GateOutput("rewrite", prior=0.25, logprob_weight=1.0)},
        {"raw_prompt": "5 6 8"},
    ):
        asker = bench.asker(PROMPT)
        for name, value in change.items():
            setattr(asker.request, name, value)
        bench.loop.submit(asker.request)
        bench.drain()
        assert bench.loop.metrics.cached == 0, change


def test_what_is_sampled_late_or_given_up_is_not_kept(bench: Bench) -> None:
    assert not any(ask(bench, PROMPT, temperature=0.9)[1] for _ in range(2))
    late = bench.submit((6, 7), deadline_ms=1)
    bench.loop.turn()
    bench.now += 1
    bench.drain()
    assert late.last[0].finish_reason == "deadline"
    assert not ask(bench, (6, 7))[1]
    bench.submit((7, 8), cancel_after=1)
    bench.drain()
    assert not ask(bench, (7, 8))[1]


@pytest.mark.parametrize("form", ["rewrite", "complement"])
def test_what_a_deadline_has_cut_is_not_kept_whatever_it_was_answered_with(form: Form) -> None:
    """Cut to whole sentences it may be withheld, or end with a finished hypothesis of an unfinished search."""
    bench = Bench(speculation=False, guard=True, cache_bytes=2**20)
    for options in ({}, {"num_beams": 3}):
        late = bench.submit((11, 12, 13), form=form, deadline_ms=50, **options)
        bench.loop.turn()
        bench.loop.turn()
        bench.now += 1
        bench.drain()
        assert late.last
        assert not ask(bench, (11, 12, 13), form=form, **options)[1], late.last


def test_a_known_answer_needs_no_slot() -> None:
    bench = Bench(slots=1, queue=3, speculation=False, cache_bytes=2**20)
    events, _ = ask(bench, PROMPT)
    running, waiting, known = bench.submit((11, 12, 13)), bench.submit((8, 9)), bench.submit(PROMPT)
    bench.loop.turn()
    assert ([replace(event, cached=False) for event in known.events], running.ends, waiting.ends) == (events, [], [])


def test_no_cache_keeps_nothing() -> None:
    bench = Bench()
    assert not any(ask(bench, PROMPT)[1] for _ in range(2))


def test_the_bytes_are_bounded_and_the_oldest_goes_first() -> None:
    cache: ByteCache[int] = ByteCache(3 * (100 + OVERHEAD))
    for value in range(3):
        cache.put(value, value, 100)
    assert cache.get(0) == 0
    cache.put(3, 3, 100)
    cache.put(4, 4, 10_000)
    assert [cache.get(value) for value in range(5)] == [0, None, 2, 3, None]


def test_a_digest_tells_types_shapes_and_borders() -> None:
    ones = np.ones((2, 3), np.float32)
    seen = {
        digest(*parts)
        for parts in (
            ("ab", "c"),
            ("a", "bc"),
            (b"ab", "c"),
            (ones,),
            (ones.T,),
            (ones.astype(np.float64),),
            (ones, ones),
        )
    }
    assert len(seen) == 7
