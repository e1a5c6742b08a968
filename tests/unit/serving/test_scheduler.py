"""The slots, the queue and the turns of the decode loop, against what must hold after every turn.

No thread, no model and no waiting: time is a number, and :mod:`tests.unit.serving.fakes` writes the texts.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from neuro_latent_core.errors import PublicError
from neuro_latent_core.form import SEPARATOR, Form
from neuro_latent_core.guard import LANGUAGE, NOT_SURE
from neuro_latent_core.options import RequestOptions
from neuro_latent_serving.engine import sequence
from neuro_latent_serving.engine.gate import GateOutput
from neuro_latent_serving.engine.loop import PREFILL_TOKENS, DecodeLoop, LoopConfig
from neuro_latent_serving.engine.request import Request
from neuro_latent_serving.engine.sequence import DEADLINE, NOT_CHECKED, UNCHANGED, WITHHELD, Event
from neuro_latent_serving.errors import EngineBusy, EngineClosed
from tests.unit.serving.askers import Asker
from tests.unit.serving.fakes import EOS, START, FakeDecoder, FakeDetokenizer, Prompt, right_texts

TICK_S = 1e-5


class Bench:
    """A loop with its fakes and a clock of its own."""

    def __init__(
        self, slots: int = 4, queue: int = 3, speculation: bool = True, guard: bool = False, cache_bytes: int = 0
    ) -> None:
        self.now = 0.0
        self.decoder = FakeDecoder(slots)
        config = LoopConfig(START, EOS, slots, queue, speculation, guard, cache_bytes=cache_bytes)
        self.loop = DecodeLoop(self.decoder, FakeDetokenizer(), config, self.clock)  # type: ignore[arg-type]

    def clock(self) -> float:
        self.now += TICK_S
        return self.now

    def asker(
        self,
        prompt: Prompt = (5, 6, 7),
        padding: int = 0,
        cancel_after: int | None = None,
        form: Form = "rewrite",
        **options: Any,
    ) -> Asker:
        """A request that was not submitted yet; ``padding`` encoder tokens are masked, half of them in its middle."""
        text = " ".join(map(str, prompt))
        values = [*prompt[:1], *[9] * (padding // 2), *prompt[1:], *[9] * (padding - padding // 2)]
        mask = [1, *[0] * (padding // 2), *[1] * (len(prompt) - 1), *[0] * (padding - padding // 2)]
        asker = Asker(text, RequestOptions(**{"max_length": 9, "seed": 3, **options}), cancel_after=cancel_after)
        asker.request = Request(
            text,
            np.array(values, dtype=np.float32)[:, None],
            np.array(mask),
            asker.options,
            asker.on_event,
            asker.on_end,
            lambda: asker.cancelled,
            gate=GateOutput(form, prior=0.5, logprob_weight=1.0),
            arrived=self.clock(),
        )
        return asker

    def submit(self, *args: Any, **options: Any) -> Asker:
        asker = self.asker(*args, **options)
        self.loop.submit(asker.request)
        return asker

    def drain(self, turns: int = 1000) -> None:
        while not self.loop.idle:
            self.loop.turn()
            turns -= 1
            assert turns, "it does not drain"


def prompt_of(asker: Asker) -> Prompt:
    return tuple(int(word) for word in asker.text.split())


def assert_right(asker: Asker) -> None:
    """It was told the right texts, in order, whole and streamed."""
    assert asker.ends == [None]
    texts = right_texts(prompt_of(asker), asker.options)
    assert len(asker.last) == len(texts) == asker.options.num_return_sequences
    for i, (event, tokens) in enumerate(zip(asker.last, texts, strict=True)):
        assert event.sequence_index == i
        assert event.generated_tokens == len(tokens) <= asker.options.max_length
        assert_served(asker, event, tokens)


def assert_served(asker: Asker, event: Event, tokens: list[int]) -> None:
    """Of these tokens, unguarded, it was told what their form, the gate and the deadline let through."""
    written, complements = FakeDetokenizer().decode(tokens), asker.request.gate.form == "complement"
    assert asker.joined(event.sequence_index) == event.text
    assert 0 <= event.score <= 1
    least = asker.options.min_confidence or 0.0
    if event.finish_reason == WITHHELD:
        assert (event.text, event.added) == (asker.text, "")
        if event.reason == NOT_SURE:
            assert complements
            assert event.score < least
        else:
            assert not written
    elif event.finish_reason == UNCHANGED or (event.finish_reason == DEADLINE and not written):
        assert (event.text, event.added, event.reason, written) == (asker.text, "", "", "")
        assert complements or event.finish_reason == DEADLINE
    else:
        assert (event.added, event.reason) == (written if complements else "", "")
        assert event.text == (asker.text + SEPARATOR if complements else "") + written
        assert event.score >= least or not complements
    if complements and event.score > 0:  # it had its slots
        mine = [e for e in asker.events if e.sequence_index == event.sequence_index]
        assert [e.piece for e in mine] == [asker.text, event.text.removeprefix(asker.text)]


modes = st.one_of(
    st.just({}),
    st.builds(
        lambda n, k, seed: {"temperature": 0.9, "num_return_sequences": n, "top_k": k, "seed": seed},
        st.integers(1, 3),
        st.sampled_from([0, 4, 100]),
        st.integers(0, 3),
    ),
    st.builds(
        lambda beams, n, penalty: {
            "num_beams": beams,
            "num_return_sequences": min(n, beams),
            "length_penalty": penalty,
        },
        st.integers(2, 4),
        st.integers(1, 4),
        st.sampled_from([1.0, -0.5]),
    ),
)
prompts = st.one_of(
    st.lists(st.integers(2, 23), min_size=1, max_size=12).map(tuple),
    st.sampled_from([(7, 8) * 60, (3, 4, 5) * 90, (9,) * 600]),  # 120, 270 and 600 tokens for the prefill budget
)


class LoopMachine(RuleBasedStateMachine):
    """Any arrivals, lengths, modes, cancellations and deadlines; the queue that there should be is kept beside."""

    @initialize(slots=st.integers(4, 9), queue=st.integers(1, 6), speculation=st.booleans())
    def begin(self, slots: int, queue: int, speculation: bool) -> None:
        self.slots, self.queue = slots, queue
        self.bench = Bench(slots, queue, speculation)
        self.loop, self.decoder = self.bench.loop, self.bench.decoder
        self.accepted: list[Asker] = []
        self.waiting: list[Asker] = []
        """In order of arrival."""
        self.refused = 0
        self.decoder.before_step = self.see_step

    def see_step(self, tokens_BW: np.ndarray[Any, Any]) -> None:
        """Between admission and step: the rows are those of the running requests, and nobody waits without reason."""
        self.fed = [running.request for running in self.loop._running]
        taken = [row for running in self.loop._running for row in running.rows]
        assert sorted(taken) == list(range(len(tokens_BW)))
        assert len(taken) <= self.slots

    @rule(
        prompt=prompts,
        mode=modes,
        length=st.sampled_from([1, 2, 5, 20]),
        padding=st.sampled_from([0, 0, 3, 16]),
        form=st.sampled_from(["complement", "rewrite"]),
        least=st.sampled_from([None, None, 0.0, 0.4, 1.0]),
        deadline=st.sampled_from([0, 0, 0, 1, 50]),
        cancel_after=st.sampled_from([None, None, None, 0, 1, 3]),
        poisoned=st.sampled_from([False] * 7 + [True]),
    )
    def submit(
        self,
        prompt: Prompt,
        mode: dict[str, Any],
        length: int,
        padding: int,
        form: Form,
        least: float | None,
        deadline: int,
        cancel_after: int | None,
        poisoned: bool,
    ) -> None:
        options = {"max_length": length, "deadline_ms": deadline, "min_confidence": least, **mode}
        asker = self.bench.asker(prompt, padding, cancel_after, form, **options)
        if poisoned:
            asker.request.hidden_QD[0] = -1
        full = len(self.waiting) >= self.queue
        try:
            self.loop.submit(asker.request)
        except EngineBusy:
            assert full
            self.refused += 1
            assert not asker.ends
            assert not asker.events
            return
        assert not full
        self.accepted.append(asker)
        self.waiting.append(asker)

    @precondition(lambda self: any(not asker.ends for asker in self.accepted))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from([asker for asker in self.accepted if not asker.ends])).cancelled = True

    @rule(seconds=st.sampled_from([0.002, 0.03]))
    def time_goes_by(self, seconds: float) -> None:
        self.bench.now += seconds

    @rule()
    def turn(self) -> None:
        before = [asker for asker in self.accepted if not asker.ends]
        told = {asker: len(asker.events) for asker in before}
        cancelled = [asker for asker in before if asker.cancelled]
        overdue = [a for a in before if not a.cancelled and a.request.overdue(self.bench.now)]
        prefilled, stepped, self.fed = len(self.decoder.prefilled), len(self.decoder.stepped), list[Request]()
        self.loop.turn()

        for asker in cancelled:
            assert asker.ends == [None]
            assert len(asker.events) == told[asker], "told after it was cancelled"
        for asker in overdue:
            assert asker.ends == [None]
            assert len(asker.last) == asker.options.num_return_sequences
            # A search may have found texts before time was up.
            if asker.options.num_beams == 1:
                assert any(e.finish_reason in (DEADLINE, WITHHELD) for e in asker.events[told[asker] :])
        for asker in cancelled + overdue:
            assert asker.request not in self.fed
        # Who was ended while it waited is gone; the others start in the order of their arrival.
        left = [a for a in self.waiting if a.ends != [None] or a.request in self.fed]
        started = left[: len(self.decoder.prefilled) - prefilled]
        assert [tuple(a.request.hidden_QD[: last_real(a), 0].astype(int)) for a in started] == self.decoder.prefilled[
            prefilled:
        ]
        self.waiting = left[len(started) :]
        spent = sum(len(a.request.mask_Q) for a in started)
        assert spent <= PREFILL_TOKENS or len(started) == 1
        if self.waiting:  # it had to
            rows = self.decoder.stepped[-1][0] if len(self.decoder.stepped) > stepped else 0
            head = self.waiting[0].request
            assert rows + head.rows > self.slots or spent + len(head.mask_Q) > PREFILL_TOKENS

    @invariant()
    def rows_of_the_cache_are_those_of_the_running(self) -> None:
        taken = [row for running in self.loop._running for row in running.rows]
        assert sorted(taken) == list(range(self.decoder.cache.rows))
        assert self.loop.load == (len(taken), len(self.waiting))
        assert len(taken) <= self.slots
        assert len(self.waiting) <= self.queue
        assert self.loop.idle == (not taken and not self.waiting)

    @invariant()
    def every_request_is_answered_once_and_then_left_alone(self) -> None:
        running = {running.request for running in self.loop._running}
        assert len(running) == len(self.loop._running)
        for asker in self.accepted:
            assert len(asker.ends) == (asker.request not in running and asker not in self.waiting)
            assert not asker.late
            finals = [event.sequence_index for event in asker.last]
            assert len(finals) == len(set(finals)), "a text ended twice"
            if asker.ends:
                self.check_answer(asker)

    def check_answer(self, asker: Asker) -> None:
        if asker.request.hidden_QD[0, 0] < 0 and asker.ends != [None]:
            assert isinstance(asker.ends[0], PublicError)
            assert "internal error" in str(asker.ends[0])
            assert not asker.last
        elif asker.options.deadline_ms:
            if asker.options.num_beams == 1 and not asker.cancelled:
                texts = right_texts(prompt_of(asker), asker.options)
                for event, tokens in zip(asker.last, texts, strict=True):
                    assert_served(asker, event, tokens[: event.generated_tokens])
        elif not asker.cancelled:
            assert not any(event.finish_reason == DEADLINE for event in asker.last)
            assert_right(asker)

    def teardown(self) -> None:
        if not hasattr(self, "bench"):
            return
        turns = 0
        while not self.loop.idle:
            self.turn()
            self.rows_of_the_cache_are_those_of_the_running()
            turns += 1
            assert turns <= 21 * len(self.accepted), "it does not drain"
        self.every_request_is_answered_once_and_then_left_alone()
        assert self.decoder.cache.rows == 0
        metrics = self.loop.metrics
        assert metrics.refused == self.refused
        assert metrics.slots_used == metrics.waiting == 0
        assert metrics.steps == len(self.decoder.stepped)
        assert metrics.rows == sum(rows for rows, _ in self.decoder.stepped)
        assert metrics.accepted <= metrics.drafted
        inside = metrics.queue_seconds, metrics.prefill_seconds, metrics.decode_seconds, metrics.text_seconds
        assert min(inside) >= 0
        assert sum(inside) <= metrics.request_seconds + 1e-9
        finals = [event for asker in self.accepted for event in asker.last]
        assert metrics.unchanged == sum(event.finish_reason == UNCHANGED for event in finals)
        assert metrics.withheld_by_gate == sum(event.reason == NOT_SURE for event in finals)
        assert metrics.withheld_by_guard == sum(event.reason not in ("", NOT_SURE) for event in finals)


def last_real(asker: Asker) -> int:
    return int(np.flatnonzero(asker.request.mask_Q)[-1]) + 1


LoopMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30)
TestDecodeLoop = LoopMachine.TestCase


def test_requests_start_in_the_order_of_their_arrival_and_a_large_one_is_not_overtaken() -> None:
    bench = Bench(slots=3)
    first, large, small = (
        bench.submit((2, 3), max_length=1, num_beams=2),
        bench.submit((4, 5), max_length=1, temperature=1.0, num_return_sequences=2),
        bench.submit((6, 7), max_length=1),
    )
    bench.loop.turn()
    assert (len(first.ends), len(large.ends), len(small.ends)) == (1, 0, 0)
    bench.loop.turn()
    assert (len(large.ends), len(small.ends)) == (1, 1)
    assert bench.decoder.stepped == [(2, 1), (3, 1)]


def test_the_encoder_tokens_that_start_in_one_turn_are_bounded_but_for_a_single_request() -> None:
    bench = Bench(slots=8, queue=8)
    for tokens in (300, 212, 1, 600, 1):
        bench.submit((5,) * tokens, temperature=1.0)
    started = []
    for _ in range(4):
        bench.loop.turn()
        started.append([len(prompt) for prompt in bench.decoder.prefilled])
        bench.decoder.prefilled.clear()
    assert started == [[300, 212], [1], [600], [1]]


def test_a_request_that_cannot_start_is_answered_takes_no_slot_and_the_others_go_on() -> None:
    bench = Bench(slots=2)
    failing = bench.asker((2, 3), num_beams=2)
    failing.request.hidden_QD[0] = -1
    before = bench.submit((4, 5), temperature=1.0)
    bench.loop.submit(failing.request)
    after = bench.submit((6, 7))
    bench.drain()
    (error,) = failing.ends
    assert isinstance(error, PublicError)
    assert "internal error" in str(error)
    for asker in (before, after):
        assert_right(asker)
    assert bench.loop.load == (0, 0)


def test_abandoning_answers_all_and_leaves_nothing() -> None:
    bench = Bench(slots=2)
    askers = [bench.submit((2, i), max_length=200, num_beams=2) for i in range(2, 5)]
    bench.loop.turn()
    bench.loop.abandon(EngineClosed("over"))
    for asker in askers:
        assert [str(error) for error in asker.ends] == ["over"]
    assert bench.loop.load == (0, 0)
    assert bench.loop.idle


@pytest.mark.parametrize("deadline", [0, 600_000])
def test_a_text_is_drafted_for_and_no_longer_than_asked_for(deadline: int) -> None:
    bench = Bench()
    askers = [bench.submit((4, 9, 2) * 4, max_length=length, deadline_ms=deadline) for length in (1, 2, 40)]
    bench.drain()
    for asker in askers:
        assert_right(asker)


def test_first_token_times_are_from_arrival_to_the_end_of_the_first_step() -> None:
    bench = Bench(slots=1)
    bench.submit((2, 3), max_length=1)
    bench.submit((4, 5), max_length=1)
    for _ in range(2):
        bench.now += 10
        bench.loop.turn()
    assert list(bench.loop.metrics.first_token_seconds) == pytest.approx([10, 20], abs=0.1)


def test_each_request_has_its_own_share_of_the_engines_time() -> None:
    bench = Bench(slots=2)
    asked = [bench.asker((i, 3), temperature=1.0, max_length=1) for i in (2, 4, 5)]
    for asker in asked:
        asker.request.asked = asker.request.arrived - 4
        bench.loop.submit(asker.request)
    bench.decoder.before_step = lambda tokens_BW: setattr(bench, "now", bench.now + 10)
    bench.drain()
    metrics = bench.loop.metrics
    assert metrics.encode_seconds == pytest.approx(12, abs=0.1)
    assert metrics.queue_seconds == pytest.approx(10, abs=0.1), "the third waits for a step of the others"
    assert metrics.decode_seconds == pytest.approx(30, abs=0.1)
    assert metrics.request_seconds == pytest.approx(40, abs=0.1)
    assert 0 < metrics.text_seconds < 0.1


def test_the_prompt_is_told_before_the_first_step_and_its_complement_at_the_end() -> None:
    bench = Bench()
    asker = bench.asker((4, 9, 2), form="complement", temperature=0.9, num_return_sequences=2, min_confidence=0.0)
    told: list[list[str]] = []
    bench.decoder.before_step = lambda tokens_BW: told.append([event.piece for event in asker.events])
    bench.loop.submit(asker.request)
    bench.drain()
    assert told[0] == ["4 9 2", "4 9 2"]
    assert_right(asker)


def test_a_prompt_in_another_language_is_withheld_without_a_slot() -> None:
    bench = Bench(guard=True)
    asker = bench.asker(form="complement")
    asker.request.raw_prompt = "Schreibe bitte eine kurze Geschichte f\u00fcr die Kinder."
    bench.loop.submit(asker.request)
    bench.loop.turn()
    assert asker.ends == [None]
    assert (asker.answer.text, asker.answer.reason) == (asker.request.raw_prompt, LANGUAGE)
    assert not bench.decoder.prefilled
    assert bench.loop.metrics.withheld_by_guard == 1


def test_a_guard_that_fails_withholds_its_text_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(raw: str, text: str, form: Form) -> str:
        if raw == "4 5":
            raise KeyError(raw)
        return ""

    monkeypatch.setattr(sequence, "rejects", fail)
    bench = Bench(guard=True)
    failing, other = (bench.submit(prompt, form="complement", max_length=200) for prompt in ((4, 5), (6, 7)))
    bench.drain()
    assert (failing.answer.text, failing.answer.finish_reason) == ("4 5", WITHHELD)
    assert failing.answer.reason == NOT_CHECKED
    assert other.answer.added
    assert [record.message for record in caplog.records] == ["the guard has failed: KeyError"]
