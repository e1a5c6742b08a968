"""The decode engine on the exported tiny decoder: the same tokens as torch whoever decodes beside, and every request
is answered exactly once whatever happens."""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuro_latent_core.errors import InvalidInput, PublicError
from neuro_latent_core.options import RequestOptions
from neuro_latent_serving.engine import Engine, EngineConfig, GateOutput
from neuro_latent_serving.engine.loop import DecodeLoop
from neuro_latent_serving.errors import EngineBusy, EngineClosed
from tests.unit.serving.askers import PATIENCE_S, Asker
from tests.unit.serving.conftest import LENGTH, PROMPTS

pytestmark = pytest.mark.slow


class Gate:
    """Holds an engine before each step until it is opened, and sees how many rows each step has."""

    def __init__(self, engine: Engine) -> None:
        self._step, self.rows, self.at = engine._decoder.step, [], threading.Event()
        self._open = threading.Event()
        self.delay_s = 0.0
        engine._decoder.step = self  # type: ignore[method-assign, assignment]

    def __call__(self, tokens: Any, *arguments: Any, **named: Any) -> Any:
        self.rows.append(len(tokens))
        self.at.set()
        assert self._open.wait(PATIENCE_S)
        time.sleep(self.delay_s)
        return self._step(tokens, *arguments, **named)

    def reached(self) -> None:
        assert self.at.wait(PATIENCE_S)

    def open(self) -> None:
        self._open.set()


def assert_as_torch(asker: Asker, expected: dict[str, tuple[str, int]]) -> None:
    answer = asker.answer
    assert asker.ends == [None]
    assert (answer.text, answer.generated_tokens) == expected[asker.text]
    assert answer.finish_reason == ("length" if answer.generated_tokens == LENGTH else "stop")
    assert asker.joined() == answer.text


# Tokens -------------------------------------------------------------------------------------------------------------


def test_a_request_alone_gets_the_tokens_of_torch(
    start: Callable[..., Engine], ask: Callable[..., Asker], expected: dict[str, tuple[str, int]]
) -> None:
    engine = start()
    for text in PROMPTS:
        asker = ask(text)
        engine.submit(asker.request)
        assert_as_torch(asker, expected)
    assert engine.load == (0, 0)


@pytest.mark.parametrize("slots", [3, 16])
def test_requests_together_get_the_tokens_of_torch(
    start: Callable[..., Engine], ask: Callable[..., Asker], expected: dict[str, tuple[str, int]], slots: int
) -> None:
    engine = start(slots=slots)
    gate = Gate(engine)
    askers = [ask(text, padding=3 * (i % 4)) for i, text in enumerate(PROMPTS * 2)]
    for i, asker in enumerate(askers):
        engine.submit(asker.request)
        if i == slots:
            gate.open()  # those after it join while others are on their way
        if i > slots:
            time.sleep(0.003)
    for asker in askers:
        assert_as_torch(asker, expected)
    assert 1 < max(gate.rows) <= slots


def test_the_score_follows_the_mean_log_probability_of_torch(
    start: Callable[..., Engine], ask: Callable[..., Asker], optimizer: Any
) -> None:
    import torch

    (row,) = optimizer.generate_ids(PROMPTS[:1], LENGTH)
    tokens = optimizer.generator.tokenize(PROMPTS[:1], 512)
    with torch.no_grad():
        hidden, mask = optimizer.encode(optimizer.embed(PROMPTS[:1]), tokens["input_ids"], tokens["attention_mask"])
        chosen = row if len(row) == LENGTH else [*row, 1]
        logits = optimizer.generator.logits(hidden, mask, torch.tensor([chosen]))[0].log_softmax(-1)
    asker = ask(PROMPTS[0], gate=GateOutput(prior=1.0, logprob_weight=0.5))
    start().submit(asker.request)
    mean = logits[range(len(chosen)), chosen].mean()
    assert asker.answer.score == pytest.approx(torch.sigmoid(1 + 0.5 * mean).item(), abs=1e-4)


@pytest.mark.parametrize("length", [1, 7])
def test_a_text_ends_at_its_own_length(
    start: Callable[..., Engine], ask: Callable[..., Asker], optimizer: Any, length: int
) -> None:
    engine, short, long = start(), ask(PROMPTS[1], max_length=length), ask(PROMPTS[1])
    for asker in (long, short):
        engine.submit(asker.request)
    assert short.answer.generated_tokens == min(length, long.answer.generated_tokens)
    assert short.answer.text == optimizer.generate(PROMPTS[1:2], length)[0] or short.answer.finish_reason == "withheld"


def test_a_sampled_text_depends_on_its_seed_and_not_on_its_batch_mates(
    start: Callable[..., Engine], ask: Callable[..., Asker]
) -> None:
    engine = start(slots=8)
    sampling = {"temperature": 1.0, "top_k": 50, "top_p": 0.95}
    alone = ask(seed=11, **sampling)
    engine.submit(alone.request)
    alone.wait()
    among = [ask(PROMPTS[i], seed=i, **sampling) for i in range(1, 5)]
    again, other = ask(seed=11, padding=5, **sampling), ask(seed=12, **sampling)
    for asker in (*among, again, other):
        engine.submit(asker.request)
    assert again.answer.text == alone.answer.text
    assert other.answer.text != alone.answer.text


def test_several_sequences_come_back_with_their_indices_and_the_first_is_that_of_one(
    start: Callable[..., Engine], ask: Callable[..., Asker]
) -> None:
    engine = start()
    one, three = (ask(seed=5, temperature=1.0, num_return_sequences=n) for n in (1, 3))
    for asker in (one, three):
        engine.submit(asker.request)
    assert [e.sequence_index for e in three.wait().last] == [0, 1, 2]
    assert len({e.text for e in three.last}) == 3
    assert three.last[0].text == one.answer.text
    for event in three.last:
        assert three.joined(event.sequence_index) == event.text


def test_an_empty_rewrite_is_withheld(start: Callable[..., Engine], ask: Callable[..., Asker]) -> None:
    engine = start()
    step = engine._decoder.step

    def ends_at_once(*arguments: Any, **named: Any) -> Any:
        result = step(*arguments, **named)
        return replace(result, next_token_BW=np.ones_like(result.next_token_BW))

    engine._decoder.step = ends_at_once  # type: ignore[method-assign]
    asker = ask()
    engine.submit(asker.request)
    answer = asker.answer
    assert (answer.text, answer.piece, answer.added) == (PROMPTS[0], PROMPTS[0], "")
    assert (answer.finish_reason, answer.reason, answer.generated_tokens) == ("withheld", "blank", 0)


def ending_at_once(step: Callable[..., Any]) -> Callable[..., Any]:
    """A decoder's step that writes the end token, greedy, sampled or searched."""

    def ends(*arguments: Any, **named: Any) -> Any:
        result = step(*arguments, **named)
        tokens, logprobs = result.candidate_tokens_BWC.copy(), result.candidate_logprobs_BWC.copy()
        if tokens.size:
            tokens[..., 0], logprobs[..., 0], logprobs[..., 1:] = 1, -0.1, -30.0
        every = None
        if result.logprobs_BWV is not None:
            every = np.full_like(result.logprobs_BWV, -30.0)
            every[..., 1] = -0.1
        return replace(
            result,
            next_token_BW=np.ones_like(result.next_token_BW),
            candidate_tokens_BWC=tokens,
            candidate_logprobs_BWC=logprobs,
            logprobs_BWV=every,
        )

    return ends


COMPLEMENT = GateOutput("complement")


@pytest.mark.parametrize("guard", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.8, "top_k": 20, "seed": 1},
        {"temperature": 1.2, "seed": 2, "num_return_sequences": 3},
        {"num_beams": 3},
        {"num_beams": 4, "num_return_sequences": 2},
    ],
)
def test_an_empty_complement_leaves_the_prompt_unchanged(
    start: Callable[..., Engine], ask: Callable[..., Asker], options: dict[str, Any], guard: bool
) -> None:
    engine = start(guard=guard)
    engine._decoder.step = ending_at_once(engine._decoder.step)  # type: ignore[method-assign]
    asker = ask(gate=COMPLEMENT, **options)
    engine.submit(asker.request)
    asker.wait()
    first, *_ = asker.last
    assert (first.text, first.added, first.reason) == (PROMPTS[0], "", "")
    assert (first.finish_reason, first.generated_tokens) == ("unchanged", 0)
    for event in asker.last:
        assert asker.joined(event.sequence_index) == event.text
    assert engine.metrics.unchanged >= 1


def test_the_prompt_is_told_before_the_decode_begins(start: Callable[..., Engine], ask: Callable[..., Asker]) -> None:
    engine = start()
    gate = Gate(engine)
    asker = ask(gate=COMPLEMENT, temperature=1.0, num_return_sequences=2)
    engine.submit(asker.request)
    gate.reached()
    assert [(e.sequence_index, e.piece, e.finish_reason) for e in asker.events] == [
        (index, PROMPTS[0], "") for index in range(2)
    ]
    gate.open()
    asker.wait()
    assert len(asker.events) == 4, "the complement comes as one piece"
    for event in asker.last:
        assert event.text == f"{PROMPTS[0]}\n\n{event.added}"


def test_both_forms_share_the_steps(
    start: Callable[..., Engine], ask: Callable[..., Asker], expected: dict[str, tuple[str, int]]
) -> None:
    engine = start()
    gate = Gate(engine)
    askers = [ask(text, gate=COMPLEMENT if i % 2 else GateOutput()) for i, text in enumerate(PROMPTS)]
    for asker in askers:
        engine.submit(asker.request)
    gate.open()
    for i, asker in enumerate(askers):
        written = expected[asker.text][0]
        assert asker.answer.text == (f"{asker.text}\n\n{written}" if i % 2 else written)
    assert max(gate.rows) > 2


def test_a_prompt_in_another_language_is_answered_at_once_though_no_slot_is_free(
    start: Callable[..., Engine], ask: Callable[..., Asker]
) -> None:
    german = "Schreibe bitte eine kurze Geschichte über den Hund und die Katze."
    engine = start(slots=1, guard=True)
    gate = Gate(engine)
    running, foreign = ask(max_length=40), ask(german, gate=COMPLEMENT)
    rewritten = ask(german, max_length=2)
    engine.submit(running.request)
    gate.reached()
    for asker in (rewritten, foreign):
        engine.submit(asker.request)
    gate.open()
    (event,) = foreign.wait().events
    assert not rewritten.ends
    assert (event.text, event.piece, event.added, event.generated_tokens) == (german, german, "", 0)
    assert (event.finish_reason, event.reason, event.score) == ("withheld", "another language", 0.0)
    rewritten.wait()
    assert engine.metrics.withheld_by_guard >= 1
    assert engine.metrics.prefills == 2


def test_a_request_the_server_and_the_adapter_say_how_sure_a_text_must_be(
    start: Callable[..., Engine], ask: Callable[..., Asker]
) -> None:
    gate = GateOutput("complement", prior=0.0, threshold=0.6)  # a confidence of 0.5

    def reason(engine: Engine, **options: Any) -> str:
        asker = ask(gate=gate, max_length=3, **options)
        engine.submit(asker.request)
        assert asker.answer.score == 0.5
        return asker.answer.reason

    plain, strict, lenient = start(), start(min_confidence=0.9), start(min_confidence=0.0)
    assert [reason(engine) for engine in (plain, strict, lenient)] == ["not sure enough", "not sure enough", ""]
    assert [reason(engine, min_confidence=0.4) for engine in (plain, strict)] == ["", ""]
    assert reason(lenient, min_confidence=0.51) == "not sure enough"
    assert (strict.metrics.withheld_by_gate, strict.metrics.withheld_by_guard) == (1, 0)


# Every request is answered exactly once -----------------------------------------------------------------------------

scripts = st.lists(
    st.tuples(
        st.integers(0, len(PROMPTS) - 1),
        st.integers(1, 12),  # max_length
        st.integers(1, 3),  # num_return_sequences
        st.sampled_from([0, 0, 2, 4]),  # num_beams
        st.none() | st.integers(0, 6),  # cancelled after so many events; 0 is before it is submitted
        st.sampled_from([0, 0, 0, 1, 5, 30]),  # deadline_ms
        st.sampled_from([0.0, 0.0, 0.002]),  # pause before it
        st.booleans(),  # complement
    ),
    min_size=1,
    max_size=14,
)


@given(script=scripts)
@settings(max_examples=25)
def test_any_script_of_arrivals_cancellations_and_deadlines_drains(
    repository: Path, ask: Callable[..., Asker], script: list[tuple[Any, ...]]
) -> None:
    folder = repository / "t5_decoder" / "1"
    config = EngineConfig(decoder_start_id=0, eos_id=1, threads=1, slots=4, queue=5)
    with Engine(folder, folder / "generator_tokenizer.json", config) as engine:
        gate = Gate(engine)
        gate.open()
        accepted: list[Asker] = []
        for prompt, length, copies, beams, cancel_after, deadline, pause, complement in script:
            time.sleep(pause)
            mode: dict[str, Any] = {"num_return_sequences": copies} if copies > 1 else {}
            mode |= {"num_beams": beams} if beams >= copies else {"temperature": 0.9} if copies > 1 else {}
            mode |= {"gate": COMPLEMENT} if complement else {}
            asker = ask(PROMPTS[prompt], cancel_after=cancel_after, max_length=length, deadline_ms=deadline, **mode)
            asker.cancelled = cancel_after == 0
            with contextlib.suppress(EngineBusy):
                engine.submit(asker.request)
                accepted.append(asker)
            assert engine.load[1] <= 5
        for asker in accepted:
            asker.wait()
        assert engine.healthy
    assert all(rows <= 4 for rows in gate.rows)
    assert engine.load == (0, 0)
    for asker in accepted:
        assert asker.ends == [None]
        assert not asker.late
        indices = [e.sequence_index for e in asker.last]
        assert len(indices) == len(set(indices)), "a text ended twice"
        if not asker.cancelled:
            assert indices == list(range(asker.options.num_return_sequences))
        for event in asker.last:
            assert event.text.strip()
            assert event.generated_tokens <= asker.options.max_length
            assert asker.joined(event.sequence_index) == event.text
            assert event.finish_reason in ("stop", "length", "deadline", "unchanged", "withheld")
            assert event.finish_reason != "deadline" or asker.options.deadline_ms


def test_one_request_more_than_the_queue_holds_is_refused_at_once(
    start: Callable[..., Engine], ask: Callable[..., Asker], expected: dict[str, tuple[str, int]]
) -> None:
    engine = start(slots=1, queue=2)
    gate = Gate(engine)
    running, *waiting = (ask(text) for text in PROMPTS[:3])
    engine.submit(running.request)
    gate.reached()
    for asker in waiting:
        engine.submit(asker.request)
    refused = ask(PROMPTS[3])
    with pytest.raises(EngineBusy, match=r"too busy: its queue holds 2 requests already; try again later"):
        engine.submit(refused.request)
    assert engine.load == (1, 2)
    gate.open()
    for asker in (running, *waiting):
        assert_as_torch(asker, expected)
    assert not refused.ends
    assert not refused.events


def test_requests_start_in_the_order_of_their_arrival_and_a_large_one_does_not_starve(
    start: Callable[..., Engine], ask: Callable[..., Asker]
) -> None:
    engine = start(slots=3)
    gate = Gate(engine)
    ended: list[str] = []
    first, large, small = (
        ask(max_length=4),
        ask(max_length=2, num_return_sequences=3, temperature=1.0),
        ask(max_length=1),
    )
    for name, asker in (("first", first), ("large", large), ("small", small)):
        asker.request.on_end = lambda error, name=name, asker=asker: (ended.append(name), asker.on_end(error))[1]
        engine.submit(asker.request)
        gate.reached()
    gate.open()
    for asker in (first, large, small):
        asker.wait()
    assert ended == ["first", "large", "small"]


def test_a_cancelled_request_leaves_and_frees_its_slots(
    start: Callable[..., Engine], ask: Callable[..., Asker]
) -> None:
    engine = start(slots=2)
    gate = Gate(engine)
    gate.delay_s = 0.002
    long = ask(max_length=400, num_return_sequences=2, temperature=3.0, seed=1, cancel_after=3)
    next_one = ask(PROMPTS[1], max_length=3)
    for asker in (long, next_one):
        engine.submit(asker.request)
    gate.open()
    assert long.wait().ends == [None]
    assert len(long.last) <= 1
    assert next_one.answer.generated_tokens <= 3


def test_a_cancelled_waiting_request_leaves_without_an_event_though_an_equal_one_waits_too(
    start: Callable[..., Engine], ask: Callable[..., Asker]
) -> None:
    engine = start(slots=1)
    gate = Gate(engine)
    running, equal, cancelled = ask(), ask(PROMPTS[1], max_length=2), ask(PROMPTS[1], max_length=2)
    cancelled.request.hidden_QD = equal.request.hidden_QD.copy()  # arrays that cannot be compared with one answer
    asked: list[bool] = []

    def only_the_first_time() -> bool:  # as a polled flag answers
        asked.append(True)
        return len(asked) == 1

    cancelled.request.is_cancelled = only_the_first_time
    engine.submit(running.request)
    gate.reached()
    engine.submit(equal.request)
    engine.submit(cancelled.request)
    gate.open()
    assert cancelled.wait().ends == [None]
    assert not cancelled.events
    assert equal.answer.generated_tokens <= 2
    assert running.wait().ends == [None]
    assert engine.healthy


def test_a_deadline_while_running_gives_what_is_written_so_far(
    start: Callable[..., Engine], ask: Callable[..., Asker], optimizer: Any
) -> None:
    engine = start()
    gate = Gate(engine)
    gate.delay_s = 0.05
    gate.open()
    asker = ask(PROMPTS[1], deadline_ms=600, max_length=400)
    engine.submit(asker.request)
    answer = asker.answer
    assert answer.finish_reason == "deadline"
    assert 0 < answer.generated_tokens <= 12
    assert answer.text == optimizer.generate(PROMPTS[1:2], answer.generated_tokens)[0]
    assert asker.joined() == answer.text


@pytest.mark.parametrize("slots_free", [False, True])
def test_a_deadline_while_waiting_gives_the_raw_prompt(
    start: Callable[..., Engine], ask: Callable[..., Asker], slots_free: bool
) -> None:
    engine = start(slots=2 if slots_free else 1)
    gate = Gate(engine)
    running = ask(max_length=3)
    engine.submit(running.request)
    gate.reached()
    waiting = ask(PROMPTS[1], deadline_ms=20)
    engine.submit(waiting.request)
    time.sleep(0.03)
    gate.open()
    answer = waiting.answer
    assert (answer.text, answer.piece, answer.finish_reason) == (PROMPTS[1], PROMPTS[1], "deadline")
    assert (answer.generated_tokens, answer.score) == (0, 0.0)
    assert running.answer.finish_reason in ("length", "stop")


# Failures and the end -----------------------------------------------------------------------------------------------


@pytest.fixture
def thread_errors(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What ended a thread; pytest does not see it then."""
    errors: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", errors.append)
    return errors


@pytest.fixture
def engine_threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which threads have measured the steps."""
    names: list[str] = []
    calibrate = DecodeLoop.calibrate
    monkeypatch.setattr(
        DecodeLoop, "calibrate", lambda loop: (names.append(threading.current_thread().name), calibrate(loop))[1]
    )
    return names


def test_the_warm_up_decodes_on_the_thread_of_the_engine_alone(
    start: Callable[..., Engine], engine_threads: list[str]
) -> None:
    engine = start()
    engine.warm_up()
    assert engine_threads == ["decode"]
    assert (engine.metrics.steps, engine.load) == (0, (0, 0))


def test_a_step_that_fails_while_it_is_measured_fails_the_warm_up_and_the_engine(start: Callable[..., Engine]) -> None:
    engine = start()

    def fail(*arguments: Any, **named: Any) -> Any:
        raise MemoryError("too little")

    engine._decoder.step = fail  # type: ignore[method-assign]
    with pytest.raises(MemoryError, match="too little"):
        engine.warm_up()
    engine._thread.join(PATIENCE_S)
    assert not engine.healthy
    with pytest.raises(EngineClosed, match="engine has failed"):
        engine.warm_up()


def test_a_failing_step_ends_every_request_with_an_error(
    start: Callable[..., Engine], ask: Callable[..., Asker], thread_errors: list[Any]
) -> None:
    engine = start(slots=2)
    gate = Gate(engine)
    askers = [ask(text) for text in PROMPTS[:5]]
    for asker in askers[:1]:
        engine.submit(asker.request)
    gate.reached()
    for asker in askers[1:]:
        engine.submit(asker.request)

    def fail(*arguments: Any, **named: Any) -> Any:
        raise MemoryError("secret detail")

    gate._step = fail
    gate.open()
    for asker in askers:
        (error,) = asker.wait().ends
        assert isinstance(error, EngineClosed)
        assert "the decode engine has failed" in str(error)
        assert "MemoryError" not in str(error)
        assert "secret" not in str(error)
        assert not asker.late
    engine._thread.join(PATIENCE_S)
    assert not engine.healthy
    assert engine.load == (0, 0)
    with pytest.raises(EngineClosed, match="engine has failed"):
        engine.submit(ask().request)
    (caught,) = thread_errors
    assert caught.exc_type is MemoryError


def test_a_request_whose_prefill_fails_gets_an_error_and_the_others_go_on(
    start: Callable[..., Engine], ask: Callable[..., Asker]
) -> None:
    engine = start(slots=2)
    gate = Gate(engine)
    running = ask(PROMPTS[0])
    engine.submit(running.request)
    gate.reached()
    join = engine._decoder.join

    def fail_once(*arguments: Any) -> Any:
        engine._decoder.join = join  # type: ignore[method-assign]
        raise MemoryError("secret detail")

    engine._decoder.join = fail_once  # type: ignore[method-assign]
    failing, after = ask(PROMPTS[1]), ask(PROMPTS[2])
    engine.submit(failing.request)
    engine.submit(after.request)
    gate.open()
    (error,) = failing.wait().ends
    assert isinstance(error, PublicError)
    assert "internal error" in str(error)
    assert "secret" not in str(error)
    for asker in (running, after):
        assert asker.wait().ends == [None]
    assert engine.healthy


def test_one_request_that_cannot_be_told_of_a_failure_does_not_keep_it_from_the_others(
    start: Callable[..., Engine], ask: Callable[..., Asker], thread_errors: list[Any]
) -> None:
    engine = start()
    deaf, other = ask(), ask(PROMPTS[1])
    gate = Gate(engine)

    def cannot(error: PublicError | None) -> None:
        raise OSError("broken pipe")

    deaf.request.on_end = cannot
    engine.submit(deaf.request)
    gate.reached()
    engine.submit(other.request)
    gate._step = lambda *arguments, **named: 1 / 0  # type: ignore[assignment]
    gate.open()
    assert isinstance(other.wait().ends[0], EngineClosed)


def test_closing_finishes_what_was_accepted_and_refuses_the_rest(
    start: Callable[..., Engine], ask: Callable[..., Asker], expected: dict[str, tuple[str, int]]
) -> None:
    engine = start(slots=2)
    askers = [ask(text) for text in PROMPTS[:5]]
    for asker in askers:
        engine.submit(asker.request)
    engine.close()
    for asker in askers:
        assert asker.done.is_set()
        assert_as_torch(asker, expected)
    assert not engine.healthy
    with pytest.raises(EngineClosed, match="stopping"):
        engine.submit(ask().request)
    engine.close()


def test_closing_ends_with_an_error_what_does_not_finish_in_time(
    start: Callable[..., Engine], ask: Callable[..., Asker]
) -> None:
    engine = start(slots=1)
    gate = Gate(engine)
    gate.delay_s = 0.02
    askers = [ask(text, max_length=500, temperature=5.0, seed=1) for text in PROMPTS[:3]]
    for asker in askers:
        engine.submit(asker.request)
    gate.open()
    engine.close(timeout=0.1)
    for asker in askers:
        (error,) = asker.wait().ends
        assert isinstance(error, EngineClosed)
        assert not asker.late


def test_an_idle_engine_closes_at_once(start: Callable[..., Engine]) -> None:
    engine = start()
    started = time.monotonic()
    engine.close()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_QD": np.zeros((4, 23), np.float32)}, r"encoder_hidden_states must be \[tokens, 24\], not \[4, 23\]"),
        ({"hidden_QD": np.zeros((1, 4, 24), np.float32)}, r"not \[1, 4, 24\]"),
        ({"mask_Q": np.ones(3, np.int64)}, "one entry a token"),
        ({"mask_Q": np.zeros(4, np.int64)}, "at least one 1"),
        (
            {"options": RequestOptions(num_return_sequences=5, temperature=1.0)},
            r"num_return_sequences must be at most 4 \(the server's slots\), not 5",
        ),
        ({"options": RequestOptions(num_beams=5)}, r"num_beams must be at most 4 \(the server's slots\), not 5"),
        ({"hidden_QD": np.zeros((2049, 24), np.float32)}, r"has 2049 tokens; the limit is 2048"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_at_once(
    start: Callable[..., Engine], ask: Callable[..., Asker], change: dict[str, Any], words: str
) -> None:
    fitting = {"hidden_QD": np.zeros((4, 24), np.float32), "mask_Q": np.ones(4, np.int64)}
    request = ask().request
    for name, value in {**fitting, **change}.items():
        setattr(request, name, value)
    engine = start(slots=4)
    with pytest.raises(InvalidInput, match=words):
        engine.submit(request)
    assert engine.load == (0, 0)


@pytest.mark.parametrize("wrong", [{"slots": 0}, {"queue": 0}, {"threads": -1}])
def test_sizes_of_an_engine_are_checked(wrong: dict[str, int]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} must be at least"):
        EngineConfig(decoder_start_id=0, eos_id=1, **wrong)
