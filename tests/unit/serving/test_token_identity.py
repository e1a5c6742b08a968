"""The same tokens whatever helps or stands beside: as torch writes them, alone and among batch mates, in every mode."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuro_latent_serving.engine import Engine, EngineConfig, GateOutput
from tests.unit.serving.askers import Asker
from tests.unit.serving.conftest import LENGTH, PROMPTS

pytestmark = pytest.mark.slow

MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "greedy, short": {"max_length": 3},
    "greedy, long": {"max_length": 90},
    "top_k": {"temperature": 0.9, "top_k": 20, "seed": 1},
    "top_k and top_p, several": {
        "temperature": 1.1,
        "top_k": 64,
        "top_p": 0.8,
        "num_return_sequences": 3,
        "seed": 2,
        "max_length": 33,
    },
    "top_p": {"temperature": 1.0, "top_p": 0.9, "seed": 3},
    "whole vocabulary": {"temperature": 1.3, "num_return_sequences": 2, "seed": 4},
    "more than the candidates": {"temperature": 0.8, "top_k": 65, "seed": 5},
    "2 beams": {"num_beams": 2},
    "4 beams": {"num_beams": 4, "num_return_sequences": 3, "length_penalty": 0.5},
    "4 beams, short texts": {"num_beams": 4, "length_penalty": -1.0, "max_length": 31},
    "2 beams, long texts": {"num_beams": 2, "num_return_sequences": 2, "length_penalty": 2.0, "max_length": 9},
}

Answer = list[tuple[str, int, str]]
"""Text, number of tokens and reason of each of a request's texts."""


def answer(asker: Asker) -> Answer:
    assert asker.wait().ends == [None]
    for event in asker.last:
        assert asker.joined(event.sequence_index) == event.text
    return [(event.text, event.generated_tokens, event.finish_reason) for event in asker.last]


def together(engine: Engine, askers: list[Asker]) -> list[Answer]:
    for asker in askers:
        engine.submit(asker.request)
    return [answer(asker) for asker in askers]


@pytest.mark.parametrize("speculation", [False, True])
def test_greedy_texts_are_those_of_torch_with_drafts_and_without(
    start: Callable[..., Engine],
    ask: Callable[..., Asker],
    expected: dict[str, tuple[str, int]],
    speculation: bool,
) -> None:
    engine = start(speculation=speculation)
    for askers in ([[ask(text)] for text in PROMPTS], [[ask(text) for text in PROMPTS]]):
        for group in askers:
            for asker, found in zip(group, together(engine, group), strict=True):
                assert [(text, tokens) for text, tokens, _ in found] == [expected[asker.text]]
    metrics = engine.metrics
    assert (metrics.drafted > 0) is speculation
    assert metrics.accepted <= metrics.drafted


def test_drafts_are_checked_at_every_width_and_give_the_same_text(
    start: Callable[..., Engine],
    ask: Callable[..., Asker],
    optimizer: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Widths chosen at random instead of by what they cost, over a text long enough to repeat itself."""
    rng, widths = np.random.default_rng(0), set[int]()

    def any_width(drafts: list[Any], rows: int, most: int, cost: Any) -> int:
        longest = max((len(draft.tokens) for draft in drafts), default=0)
        widths.add(width := int(rng.integers(1, 2 + min(longest, most - 1))))
        return width

    monkeypatch.setattr("neuro_latent_serving.engine.loop.best_width", any_width)
    engine = start()
    texts = optimizer.generate(PROMPTS, 150)
    found = together(engine, [ask(prompt, max_length=150) for prompt in PROMPTS])
    assert [text for ((text, _, _),) in found] == texts
    assert widths == set(range(1, 9))
    assert engine.metrics.accepted > 0


def test_a_text_that_was_written_before_takes_fewer_steps(
    start: Callable[..., Engine], ask: Callable[..., Asker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every draft is checked, whatever a wide step costs here."""
    monkeypatch.setattr(
        "neuro_latent_serving.engine.loop.best_width",
        lambda drafts, rows, most, cost: 1 + max((len(draft.tokens) for draft in drafts), default=0),
    )
    engine = start()
    steps, texts = [], []
    for _ in range(2):
        before = engine.metrics.steps
        texts.append([together(engine, [ask(prompt)]) for prompt in PROMPTS])
        steps.append(engine.metrics.steps - before)
    assert texts[0] == texts[1]
    assert steps[1] < steps[0]


def test_sentences_of_the_repository_are_drafted_from_the_first_request_on(
    repository: Path, tmp_path: Path, ask: Callable[..., Asker], optimizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every draft is checked, whatever a wide step costs here."""
    monkeypatch.setattr(
        "neuro_latent_serving.engine.loop.best_width",
        lambda drafts, rows, most, cost: 1 + max((len(draft.tokens) for draft in drafts), default=0),
    )
    texts, steps = optimizer.generate(PROMPTS, LENGTH), []
    folder = Path(shutil.copytree(repository / "t5_decoder" / "1", tmp_path / "decoder"))
    for sentences in ({}, dict.fromkeys(texts, 3)):
        (folder / "frequent_sentences.json").write_text(json.dumps(sentences), encoding="utf-8")
        config = EngineConfig(decoder_start_id=0, eos_id=1, threads=1)
        with Engine(folder, folder / "generator_tokenizer.json", config) as engine:
            found = [together(engine, [ask(prompt)]) for prompt in PROMPTS]
            assert [text for (((text, _, _),),) in found] == texts
            steps.append(engine.metrics.steps)
    assert steps[1] < steps[0]


@pytest.fixture(scope="module")
def requests() -> list[tuple[str, dict[str, Any]]]:
    """Sixteen requests of mixed modes."""
    modes = [*MODES.values(), *[MODES[name] for name in ("greedy", "top_p", "2 beams", "top_k")]]
    return [(PROMPTS[i * 5 % len(PROMPTS)], mode) for i, mode in enumerate(modes)]


def test_a_text_is_the_same_alone_and_among_fifteen_batch_mates(
    start: Callable[..., Engine], ask: Callable[..., Asker], requests: list[tuple[str, dict[str, Any]]]
) -> None:
    assert len(requests) == 16
    engine = start(slots=40)
    alone = [together(engine, [ask(text, **mode)])[0] for text, mode in requests]
    assert len({text for found in alone for text, _, _ in found}) > 16
    rng = np.random.default_rng(7)
    for _ in range(4):
        order = rng.permutation(16).tolist()
        askers = [ask(requests[i][0], padding=int(rng.integers(0, 60)), **requests[i][1]) for i in order]
        for i, found in zip(order, together(engine, askers), strict=True):
            assert found == alone[i], requests[i]


def test_a_text_is_the_same_when_slots_are_few_and_without_speculation(
    start: Callable[..., Engine], ask: Callable[..., Asker], requests: list[tuple[str, dict[str, Any]]]
) -> None:
    many, few = start(slots=40), start(slots=5, speculation=False)
    askers = [[ask(text, **mode) for text, mode in requests] for _ in range(2)]
    assert together(many, askers[0]) == together(few, askers[1])


@pytest.mark.parametrize("num_beams", [2, 4])
@pytest.mark.parametrize("penalty", [-1.0, 0.0, 1.0, 2.0])
def test_beams_are_those_of_hugging_face(
    start: Callable[..., Engine], ask: Callable[..., Asker], optimizer: Any, num_beams: int, penalty: float
) -> None:
    engine = start()
    decode = optimizer.generator.tokenizer.batch_decode
    for prompt, length, wanted in ((PROMPTS[0], LENGTH, num_beams), (PROMPTS[3], 40, 1), (PROMPTS[5], 6, 2)):
        rows = optimizer.generate_ids(
            [prompt],
            length,
            num_beams=num_beams,
            num_return_sequences=wanted,
            length_penalty=penalty,
            early_stopping=False,
        )
        asker = ask(prompt, max_length=length, num_beams=num_beams, num_return_sequences=wanted, length_penalty=penalty)
        found = together(engine, [asker])[0]
        assert [(text, tokens) for text, tokens, _ in found] == [
            (text.strip(), len(row)) for text, row in zip(decode(rows, skip_special_tokens=True), rows, strict=True)
        ]


def test_the_scores_of_beams_follow_their_mean_log_probabilities(
    start: Callable[..., Engine], ask: Callable[..., Asker], optimizer: Any
) -> None:
    import torch

    gate = GateOutput(prior=1.0, logprob_weight=0.5)
    (asker,) = askers = [ask(PROMPTS[0], gate=gate, num_beams=4, num_return_sequences=4)]
    together(start(), askers)
    rows = optimizer.generate_ids([PROMPTS[0]], LENGTH, num_beams=4, num_return_sequences=4, early_stopping=False)
    tokens = optimizer.generator.tokenize(PROMPTS[:1], 512)
    with torch.no_grad():
        hidden, mask = optimizer.encode(optimizer.embed(PROMPTS[:1]), tokens["input_ids"], tokens["attention_mask"])
        for event, row in zip(asker.last, rows, strict=True):
            chosen = [*row, 1] if event.finish_reason == "stop" else row
            logits = optimizer.generator.logits(hidden, mask, torch.tensor([chosen]))[0].log_softmax(-1)
            mean = logits[range(len(chosen)), chosen].mean().item()
            assert event.score == pytest.approx(gate.confidence(mean), abs=1e-4)


VNNI = pytest.mark.skipif(
    "avx512_vnni" not in Path("/proc/cpuinfo").read_text(), reason="block sizes are for AVX-512 VNNI"
)


@pytest.fixture(scope="module", params=["int8", pytest.param("int4", marks=VNNI), "fp16"])
def less_precise(
    request: pytest.FixtureRequest, optimizer: Any, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """An engine on decoder graphs that are not float32."""
    import onnx_ir

    from neuro_latent_export.decoder_graphs import build_prefill, build_step
    from neuro_latent_export.precision import PRECISIONS
    from neuro_latent_export.sixteen_bits import narrow_products

    folder, precision = tmp_path_factory.mktemp(request.param), PRECISIONS[request.param]
    for name, build in (("prefill", build_prefill), ("step", build_step)):
        graph = build(optimizer.generator_model, precision)
        if precision.products:
            assert narrow_products(graph, onnx_ir.DataType.FLOAT16)
        onnx_ir.save(graph, folder / f"{name}.onnx")
    tokenizer = repository / "t5_decoder" / "1" / "generator_tokenizer.json"
    with Engine(folder, tokenizer, EngineConfig(decoder_start_id=0, eos_id=1, threads=2)) as engine:
        yield engine


def test_a_text_in_any_precision_is_the_same_alone_and_among_fifteen_batch_mates(
    less_precise: Engine, ask: Callable[..., Asker]
) -> None:
    asked = [(PROMPTS[i % len(PROMPTS)], options) for i, options in enumerate([*MODES.values()] * 2)]
    alone = [answers for text, options in asked for answers in together(less_precise, [ask(text, **options)])]
    among = together(less_precise, [ask(text, padding=i % 5, **options) for i, (text, options) in enumerate(asked)])
    assert among == alone
