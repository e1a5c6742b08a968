"""What of a model's text is served: forms, gate, guard, whole sentences. Texts are fed as the tiny T5's tokens."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuro_latent_core.guard.sentences import whole_sentences
from neuro_latent_serving.engine import Event, GateOutput
from neuro_latent_serving.engine.sequence import DEADLINE, OutputSequence
from neuro_latent_serving.tokenization import Detokenizer

RAW = "write a poem about the sea"
GOOD = "Use vivid images and keep it to a few short lines."
COMPLEMENT = GateOutput("complement", prior=1.0, logprob_weight=1.0, threshold=0.0)
EOS = 1

Write = Callable[..., list[Event]]


@pytest.fixture(scope="module")
def detokenizer(repository: Path) -> Detokenizer:
    return Detokenizer(repository / "t5_decoder" / "1" / "generator_tokenizer.json")


@pytest.fixture
def write(detokenizer: Detokenizer) -> Write:
    """The events of a text: written to its end, or cut after all of it by ``cut``."""

    def run(text: str, raw: str = RAW, *, cut: str = "", logprob: float = -0.5, **named: Any) -> list[Event]:
        tokens = detokenizer.encode(text, 500)
        assert detokenizer.decode(tokens) == text, "the tiny tokenizer does not know the text"
        most = len(tokens) if cut == "length" else 500
        sequence = OutputSequence(0, raw, most, detokenizer, EOS, **{"guarded": True, "gate": COMPLEMENT, **named})
        events = [sequence.begin()]
        for token in [*tokens, *([] if cut else [EOS])]:
            events.append(sequence.accept([token], [logprob]))
        if cut == DEADLINE:
            events.append(sequence.finish(DEADLINE))
        assert sequence.finished
        told = [event for event in events if event is not None]
        assert "".join(event.piece for event in told) == told[-1].text
        return told

    return run


def outcome(event: Event) -> tuple[str, str, str]:
    return event.finish_reason, event.reason, event.added


def test_a_complement_comes_as_one_piece_behind_the_prompt(write: Write) -> None:
    first, last = write(GOOD)
    assert (first.piece, first.finish_reason, first.generated_tokens) == (RAW, "", 0)
    assert last.piece == f"\n\n{GOOD}"
    assert outcome(last) == ("stop", "", GOOD)
    assert last.score == pytest.approx(GateOutput(prior=0.5).confidence(0))


@pytest.mark.parametrize(
    "raw",
    ["a\r\nb\r\n", "write a poem  \n\t ", "```py\nx = 1\n```", "first\n\nsecond\n\n", "  \u00e9 e\u0301", "x" * 32768],
)
def test_the_prompt_is_kept_byte_for_byte(write: Write, raw: str) -> None:
    last = write(GOOD, raw, guarded=False)[-1]
    assert last.text == raw + "\n\n" + GOOD
    assert write("", raw)[-1].text == raw


def test_an_empty_complement_leaves_the_prompt_unchanged_however_unsure_the_model_is(write: Write) -> None:
    first, last = write("", logprob=-9.0, min_confidence=1.0)
    assert (first.piece, last.piece, last.text) == (RAW, "", RAW)
    assert outcome(last) == ("unchanged", "", "")
    assert last.score == pytest.approx(GateOutput(prior=-8.0).confidence(0))


def test_a_complement_that_the_model_is_not_sure_of_is_withheld_with_its_score(write: Write) -> None:
    confidence = GateOutput(prior=0.5).confidence(0)
    last = write(GOOD, min_confidence=confidence + 0.01)[-1]
    assert (outcome(last), last.text) == (("withheld", "not sure enough", ""), RAW)
    assert last.score == pytest.approx(confidence)
    assert write(GOOD, min_confidence=confidence - 0.01)[-1].added == GOOD
    unguarded = write(GOOD, min_confidence=0.99, guarded=False)[-1]
    assert outcome(unguarded) == ("withheld", "not sure enough", "")


def test_a_complement_ends_before_the_sentence_that_breaks_a_rule(write: Write) -> None:
    last = write(f"{GOOD} {GOOD}")[-1]
    assert outcome(last) == ("stop", "", GOOD)


def test_a_complement_ends_before_the_first_sentence_of_which_the_model_is_not_sure_enough(
    detokenizer: Detokenizer,
) -> None:
    first, second, third = (detokenizer.encode(" ".join([GOOD] * count), 100) for count in (1, 2, 3))
    whole = " ".join([GOOD] * 3)
    for least, added, written in ((0.0, whole, len(third)), (0.6, GOOD, len(second)), (0.99, "", len(first))):
        sequence = OutputSequence(0, RAW, 500, detokenizer, EOS, gate=COMPLEMENT, min_confidence=least)
        logprobs = [-0.1 if i < len(first) else -2.0 if i < len(second) else 0.0 for i in range(len(third) + 1)]
        last = sequence.accept([*third, EOS], logprobs)
        assert last is not None
        assert last.added == added
        assert last.generated_tokens == written, "what stands behind that sentence is not written"
        mean = sum(logprobs) / len(logprobs) if added == whole else -0.1
        assert last.score == pytest.approx(COMPLEMENT.confidence(mean))
        assert outcome(last)[:2] == (("stop", "") if added else ("withheld", "not sure enough"))


def test_a_complement_that_breaks_a_rule_is_withheld(write: Write) -> None:
    last = write("the the the the the the the the the the the the the the.")[-1]
    assert (outcome(last), last.text) == (("withheld", "loop", ""), RAW)
    assert write("Use a few short", guarded=False)[-1].added == "Use a few short"
    assert outcome(write("Use a few short")[-1]) == ("withheld", "unfinished", "")


@pytest.mark.parametrize("cut", ["length", "deadline"])
@pytest.mark.parametrize("form", ["complement", "rewrite"])
def test_a_cut_text_ends_with_its_last_whole_sentence(write: Write, cut: str, form: Any) -> None:
    raw = "write a poem about the sea"
    whole = GOOD if form == "complement" else "Write a poem about the sea in a few short lines."
    last = write(f"{whole} Then ask", raw, cut=cut, gate=GateOutput(form))[-1]
    assert last.text == (f"{raw}\n\n{whole}" if form == "complement" else whole)
    assert outcome(last) == (cut, "", whole if form == "complement" else "")
    nothing = write("Write a poem about the sea in", raw, cut=cut, gate=GateOutput(form))[-1]
    assert (outcome(nothing), nothing.text) == (("withheld", "unfinished", ""), raw)


def test_a_deadline_before_the_first_token_gives_the_prompt(detokenizer: Detokenizer) -> None:
    for gate in (COMPLEMENT, GateOutput()):
        sequence = OutputSequence(0, RAW, 9, detokenizer, EOS, guarded=True, gate=gate)
        begun = sequence.begin()
        last = sequence.finish(DEADLINE)
        assert (last.text, last.finish_reason, last.reason, last.score) == (RAW, "deadline", "", 0.0)
        assert (begun.piece if begun else "") + last.piece == RAW


def test_a_rewrite_is_one_piece_while_the_guard_is_on_and_live_without_it(write: Write) -> None:
    text = "Write a poem about the sea in a few short lines."
    (only,) = write(text, gate=GateOutput())
    assert (only.piece, only.added, only.finish_reason) == (text, "", "stop")
    live = write(text, gate=GateOutput(threshold=1.0), guarded=False, min_confidence=1.0)
    assert len(live) > 3
    assert live[-1].text == text
    cut = write("Write a poem. Then", gate=GateOutput(), guarded=False, cut="length")[-1]
    assert (cut.text, cut.finish_reason) == ("Write a poem. Then", "length")


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("One. Two! Thr", "One. Two!"),
        ("Name a few, e.g. apples", ""),
        ("Do it (see the notes. And", ""),
        ('Say "yes." Then', 'Say "yes."'),
        ("Keep to: 1. first. 2. sec", "Keep to: 1. first."),
        ("所以。然", "所以。"),
        ("Version 1.5 of it", ""),
        ("", ""),
    ],
)
def test_whole_sentences(text: str, whole: str) -> None:
    assert whole_sentences(text) == whole


def test_the_confidence_of_extreme_numbers_is_one_of_the_ends() -> None:
    assert GateOutput(prior=-1e4).confidence(0) == 0
    assert GateOutput(logprob_weight=1.0).confidence(-1e30) == 0
    assert GateOutput(prior=1e4).confidence(0) == 1


def test_a_gate_of_the_projectors_row() -> None:
    assert GateOutput.of_values([0.5, 2.0, 0.25, 1.0]) == GateOutput("complement", 0.5, 2.0, 0.25)
    assert GateOutput.of_values([10.0, 0.0, 0.0, 0.0]) == GateOutput()
