"""Pre-training of the small backbones: tokenizers, corpus, tasks, batches, the loop."""

import itertools
import json
import lzma
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from neuro_latent_benchmarks.demo import PROMPTS
from neuro_latent_trainer.data import read_records
from neuro_latent_trainer.pretrain import tasks, tokens
from neuro_latent_trainer.pretrain import tokenizer as tokenizers
from neuro_latent_trainer.pretrain.everyday import everyday_pairs, read_tasks
from neuro_latent_trainer.pretrain.loop import LoopConfig, learning_rate_factor, pretrain
from neuro_latent_trainer.pretrain.overlap import HeldOut
from neuro_latent_trainer.pretrain.requests import hasty, request_of
from neuro_latent_trainer.pretrain.select import EVERYDAY, LIMITS, select_pairs
from tests import tiny

SPECIALS = (*tokenizers.ENCODER_SPECIALS, *tokenizers.GENERATOR_SPECIALS, *tokenizers.sentinel_tokens())
plain_texts = st.text(st.characters(codec="utf-8")).filter(lambda text: not any(s in text for s in SPECIALS))


@pytest.fixture(scope="module")
def generator() -> Tokenizer:
    return tokenizers.generator_tokenizer(tiny.sample_texts(), tiny.VOCABULARY)


@pytest.fixture(scope="module")
def encoder(generator: Tokenizer) -> Tokenizer:
    return tokenizers.encoder_tokenizer(generator)


@pytest.fixture(scope="module")
def store(generator: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> tokens.TokenStore:
    folder = tmp_path_factory.mktemp("tokens")
    documents = ((text, i % len(tokens.KINDS)) for i, text in enumerate(tiny.sample_texts()))
    tokens.write_token_store(documents, generator, folder)
    return tokens.open_token_store(folder)


@pytest.fixture(scope="module")
def vocabulary(generator: Tokenizer, store: tokens.TokenStore) -> tasks.Vocabulary:
    return tasks.Vocabulary(generator, np.bincount(store.ids, minlength=generator.get_vocab_size()))


@pytest.fixture(scope="module")
def sampler(store: tokens.TokenStore, vocabulary: tasks.Vocabulary) -> tasks.Sampler:
    return tasks.Sampler(store, store.split()[0], tasks.Mixture(), vocabulary)


# Tokenizers ---------------------------------------------------------------------------------------------------------


@given(plain_texts)
def test_any_text_survives_both_tokenizers(generator: Tokenizer, encoder: Tokenizer, text: str) -> None:
    for tokenizer in (generator, encoder):
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=True) == text


@given(plain_texts)
def test_encoder_and_generator_cut_a_text_into_the_same_pieces(
    generator: Tokenizer, encoder: Tokenizer, text: str
) -> None:
    ours, theirs = generator.encode(text), encoder.encode(text)
    assert ours.tokens == [*theirs.tokens[1:-1], "</s>"]
    assert (theirs.tokens[0], theirs.tokens[-1]) == ("<s>", "</s>")


def test_special_tokens_are_where_t5_and_roberta_have_them(generator: Tokenizer, encoder: Tokenizer) -> None:
    assert [generator.token_to_id(t) for t in ("<pad>", "</s>", "<unk>")] == [0, 1, 2]
    assert [encoder.token_to_id(t) for t in ("<s>", "<pad>", "</s>", "<unk>")] == [0, 1, 2, 3]
    first = generator.token_to_id("<extra_id_0>")
    assert [generator.token_to_id(t) for t in tokenizers.sentinel_tokens()] == list(range(first, first + 32))
    assert generator.get_vocab_size() == first + 32 == tiny.VOCABULARY


def test_every_digit_is_a_token_of_its_own(generator: Tokenizer) -> None:
    assert [t for t in generator.encode("In 2026, 1234.5").tokens if t.isdigit()] == list("202612345")


# The corpus ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.xz"])
def test_documents_are_read_from_the_corpus_and_then_the_targets_of_the_pairs(tmp_path: Path, suffix: str) -> None:
    corpus, pairs = tmp_path / f"corpus{suffix}", tmp_path / "pairs.jsonl"
    lines = "".join(json.dumps({"text": text, "kind": kind}) + "\n" for text, kind in (("one", "prose"), ("two", "qa")))
    corpus.write_bytes(lzma.compress(lines.encode()) if suffix.endswith("xz") else lines.encode())
    pairs.write_text('{"raw_prompt": "secret", "enhanced_prompt": "three"}\n')
    named = [(text, tokens.KINDS[kind]) for text, kind in tokens.read_documents(corpus, pairs)]
    assert named == [("one", "prose"), ("two", "qa"), ("three", "enhanced")]


def test_a_bad_line_of_the_corpus_is_named(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"text": "a", "kind": "qa"}\n{"text": \n')
    with pytest.raises(ValueError, match=r"corpus\.jsonl:2: not valid JSON"):
        list(tokens.read_documents(tmp_path / "corpus.jsonl", None))


def test_a_token_store_gives_back_its_documents(store: tokens.TokenStore, generator: Tokenizer) -> None:
    texts = tiny.sample_texts()
    assert len(store.kinds) == len(texts)
    for index in (0, 1, len(texts) - 1):
        assert generator.decode(store.document(index).tolist()) == texts[index]
        assert store.kinds[index] == index % len(tokens.KINDS)
    train, held_out = store.split()
    assert not set(train) & set(held_out)
    assert len(train) + len(held_out) == len(texts)
    assert len(held_out) == -(-len(texts) // tokens.HELD_OUT_EVERY)


# Tasks --------------------------------------------------------------------------------------------------------------

seeds = st.integers(0, 10**6)


@given(seed=seeds)
def test_span_corruption_can_be_undone(sampler: tasks.Sampler, vocabulary: tasks.Vocabulary, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids, *_ = sampler.chunk(rng)
    source, target = tasks.span_corruption(ids, vocabulary, rng)
    spans: dict[int, list[int]] = {}
    for token in target.tolist():
        if token >= vocabulary.first_sentinel:
            spans[token] = []
            current = spans[token]
        else:
            current.append(token)
    sentinels = [t for t in source.tolist() if t >= vocabulary.first_sentinel]
    assert sentinels == list(spans) == list(range(vocabulary.first_sentinel, vocabulary.first_sentinel + len(spans)))
    assert sentinels
    rebuilt = [part for token in source.tolist() for part in spans.get(token, [token])]
    assert rebuilt == ids.tolist()


@given(seed=seeds)
def test_a_continuation_is_the_rest_of_the_text(sampler: tasks.Sampler, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids, *_ = sampler.chunk(rng)
    source, target = tasks.continuation(ids, rng)
    assert [*source, *target] == ids.tolist()
    assert 4 <= len(source) <= max(4, len(ids) // 2)


@given(seed=seeds)
def test_the_request_of_an_expansion_is_a_subsequence_of_its_text(
    sampler: tasks.Sampler, vocabulary: tasks.Vocabulary, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    ids, *_ = sampler.chunk(rng)
    source, target = tasks.expansion(ids, vocabulary, rng)
    assert target is ids
    assert 0 < len(source) <= len(ids)
    rest = iter(ids.tolist())
    first, *others = source.tolist()
    assert any(t == first or vocabulary.without_space[t] == first for t in rest), "typed without a space before it"
    assert all(any(t == wanted for t in rest) for wanted in others)


@given(seed=seeds)
def test_a_repair_is_the_first_sentence_and_its_source_adds_only_false_starts(
    sampler: tasks.Sampler, vocabulary: tasks.Vocabulary, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    ids, *_ = sampler.chunk(rng)
    source, target = tasks.repair(ids, vocabulary, rng)
    assert target.tolist() == ids[: len(target)].tolist()
    assert 0 < len(target) <= tasks.MAX_REPAIR
    known = {*target.tolist(), *vocabulary.without_space[target].tolist()}
    known |= {token for start in vocabulary.false_starts for token in start.tolist()}
    known |= {int(vocabulary.without_space[start[0]]) for start in vocabulary.false_starts}
    assert set(source.tolist()) <= known


@given(seed=seeds)
def test_a_chunk_has_ink_at_its_start_and_a_length_within_the_limits(sampler: tasks.Sampler, seed: int) -> None:
    ids, kind, _ = sampler.chunk(np.random.default_rng(seed))
    assert 0 < len(ids) <= sampler.mixture.max_chunk
    assert not sampler.vocabulary.is_blank[ids[0]]
    assert not sampler.vocabulary.starts_word[ids[0]] or ids[0] == sampler.vocabulary.without_space[ids[0]]
    assert tokens.KINDS[kind] in sampler.mixture.kinds


@pytest.fixture(scope="module")
def frame(generator: Tokenizer, encoder: Tokenizer) -> tasks.EncoderFrame:
    return tasks.EncoderFrame(generator, encoder)


def test_generator_batches_are_padded_masked_and_end_with_the_end_token(
    sampler: tasks.Sampler, frame: tasks.EncoderFrame
) -> None:
    for batch in itertools.islice(tasks.generator_batches(tasks.GeneratorTasks(sampler), frame, 6, seed=3), 8):
        ids, mask, labels = batch["input_ids"], batch["attention_mask"], batch["labels"]
        assert ids.shape == mask.shape
        assert len(ids) == len(labels) == 6
        lengths = mask.sum(axis=1)
        assert lengths.max() == ids.shape[1]
        for row in range(6):
            assert mask[row].tolist() == [1] * lengths[row] + [0] * (ids.shape[1] - lengths[row])
            assert ids[row, lengths[row] - 1] == sampler.vocabulary.eos
            assert not ids[row, lengths[row] :].any()
            real = labels[row][labels[row] != tasks.IGNORE]
            assert real[-1] == sampler.vocabulary.eos
            assert (labels[row, len(real) :] == tasks.IGNORE).all()


def test_a_batch_holds_the_text_that_steers_each_row_in_the_encoders_tokens(
    sampler: tasks.Sampler, frame: tasks.EncoderFrame, generator: Tokenizer, encoder: Tokenizer
) -> None:
    steered = rows = 0
    for batch in itertools.islice(tasks.generator_batches(tasks.GeneratorTasks(sampler), frame, 8, seed=5), 24):
        for row in range(8):
            guide = batch["guide_ids"][row][batch["guide_mask"][row] == 1].tolist()
            assert (guide[0], guide[-1]) == (frame.special["<s>"], frame.special["</s>"])
            if batch["steered"][row]:
                target = batch["labels"][row][batch["labels"][row] != tasks.IGNORE].tolist()
                assert encoder.decode(guide) == generator.decode(target)
            else:
                assert len(guide) == 2
        steered += int(batch["steered"].sum())
        rows += 8
    mixture = sampler.mixture
    assert steered / rows == pytest.approx((mixture.repair + mixture.expansion) * mixture.steered, abs=0.12)


def test_encoder_batches_mask_a_fifth_of_the_tokens_and_label_only_these(
    sampler: tasks.Sampler, frame: tasks.EncoderFrame
) -> None:
    special = frame.special
    predicted = masked = changed = inner = 0
    for batch in itertools.islice(tasks.encoder_batches(sampler, frame, 8, seed=1), 24):
        ids, labels = batch["input_ids"], batch["labels"]
        chosen = labels != tasks.IGNORE
        real = np.where(chosen, labels, ids)
        for row, mask in zip(real, batch["attention_mask"], strict=True):
            assert (row[0], row[mask.sum() - 1]) == (special["<s>"], special["</s>"])
            assert (row[mask == 0] == special["<pad>"]).all()
        for row, mask in zip(batch["request_ids"], batch["request_mask"], strict=True):
            assert (row[0], row[mask.sum() - 1]) == (special["<s>"], special["</s>"])
            assert special["<mask>"] not in row
        assert (real[chosen] > max(special.values())).all()
        inner += (real > max(special.values())).sum()
        predicted += chosen.sum()
        masked += (ids[chosen] == special["<mask>"]).sum()
        changed += (ids[chosen] != labels[chosen]).sum()
        assert (ids == special["<mask>"]).sum() == (ids[chosen] == special["<mask>"]).sum()
    assert predicted / inner == pytest.approx(0.2, abs=0.02)
    assert masked / predicted == pytest.approx(0.9, abs=0.04)
    assert changed / predicted > 0.97


def test_batches_of_one_seed_repeat_and_of_another_differ(sampler: tasks.Sampler, frame: tasks.EncoderFrame) -> None:
    source = tasks.GeneratorTasks(sampler)
    first = [next(tasks.generator_batches(source, frame, 4, seed))["input_ids"] for seed in (0, 0, 1)]
    assert np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], first[2])


# Held-out texts -----------------------------------------------------------------------------------------------------

LONG = "Write a short story about a lighthouse keeper who finds a letter in a bottle on the beach."


@pytest.mark.parametrize(
    ("text", "repeats"),
    [
        (LONG, True),
        (f"Some words before. {LONG.upper().replace(' ', ',  ')} And after.", True),
        (" ".join(LONG.split()[:13]), True),
        (" ".join(LONG.split()[:12]), False),
        ("write A story!", True),
        ("Please write a story", False),
        ("", False),
    ],
)
def test_a_text_that_repeats_a_held_out_one_is_found(text: str, repeats: bool) -> None:
    assert HeldOut([LONG, "Write a story", ""]).repeated_by(text) is repeats


def test_every_text_of_a_held_out_row_counts_but_not_its_provenance(tmp_path: Path) -> None:
    path = tmp_path / "val.jsonl"
    path.write_text(json.dumps({"raw_prompt": "one", "failed": "two", "source": "three", "score": 1}) + "\n")
    known = HeldOut.read([path])
    assert [known.repeated_by(text) for text in ("One.", "two", "three")] == [True, True, False]
    assert known.texts == 2


# The loop -----------------------------------------------------------------------------------------------------------


class Line(torch.nn.Module):
    """Learns y = 2 x."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden = torch.nn.Linear(1, 4)
        self.out = torch.nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.hidden(x)))


class Stream:
    """Batches of the line, and which seeds were asked for."""

    def __init__(self, poison_at: int | None = None) -> None:
        self.seeds: list[int] = []
        self.poison_at = poison_at

    def __call__(self, seed: int) -> Any:
        self.seeds.append(seed)
        rng = np.random.default_rng(seed)
        for number in itertools.count():
            x = rng.random((8, 1), dtype=np.float32) * (np.inf if number == self.poison_at else 1)
            yield {"input_ids": x, "attention_mask": np.ones((8, 1), int), "labels": 2 * x}


def run_loop(folder: Path, stream: Stream, steps: int, log: Any = lambda text: None) -> tuple[Line, dict[str, Any]]:
    model = Line()

    def loss(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return (model(batch["input_ids"]) - batch["labels"]).square().mean()

    config = LoopConfig(
        max_steps=steps, learning_rate=0.02, embedding_rate=0.02, report_every=10, evaluate_every=20, checkpoint_every=5
    )
    held_out = list(itertools.islice(Stream()(99), 2))
    return model, pretrain(model, loss, stream, held_out, config, folder, torch.device("cpu"), log)


def test_the_loop_learns_reports_and_keeps_its_curves(tmp_path: Path) -> None:
    said: list[str] = []
    _, summary = run_loop(tmp_path, Stream(), 60, said.append)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    held_out = [row["held_out_loss"] for row in rows if "held_out_loss" in row]
    assert held_out[-1] == summary["held_out_loss"] < 0.5 * held_out[0]
    assert [row["step"] for row in rows if "loss" in row] == [10, 20, 30, 40, 50, 60]
    assert summary["steps"] == 60
    assert summary["tokens"] == 60 * 16
    assert len(said) == len(rows)
    assert json.loads((tmp_path / "loop.json").read_text())["max_steps"] == 60


def test_the_loop_goes_on_where_it_was_with_batches_it_has_not_seen(tmp_path: Path) -> None:
    stream, said = Stream(), list[str]()
    first, _ = run_loop(tmp_path, stream, 20)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 20
    assert all(torch.equal(v, first.state_dict()[k]) for k, v in saved["model"].items())
    second, summary = run_loop(tmp_path, stream, 30, said.append)
    assert said[0].startswith("resumed at step 20")
    assert stream.seeds == [0, 20]
    assert (summary["steps"], summary["tokens"]) == (30, 30 * 16)
    assert not torch.equal(second.hidden.weight, first.hidden.weight)


def test_a_loop_that_is_done_only_evaluates(tmp_path: Path) -> None:
    first, before = run_loop(tmp_path, Stream(), 10)
    again, after = run_loop(tmp_path, Stream(), 10)
    assert torch.equal(first.out.weight, again.out.weight)
    assert after["held_out_loss"] == before["held_out_loss"]
    assert after["steps"] == 10


def test_a_loss_that_is_not_finite_stops_the_loop_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"the loss is (nan|inf) at step 7; lower the learning rate"):
        run_loop(tmp_path, Stream(poison_at=7), 20)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 5
    assert all(torch.isfinite(v).all() for v in saved["model"].values())


@given(st.floats(0, 1))
@settings(max_examples=50)
def test_the_rate_stays_within_its_bounds(progress: float) -> None:
    assert 0.02 <= learning_rate_factor(progress) <= 1


def test_the_rate_warms_up_stays_and_falls() -> None:
    assert [learning_rate_factor(p) for p in (0.0, 0.01, 0.02, 0.3, 1.0)] == [0.02, 0.5, 1.0, 1.0, 0.02]
    assert learning_rate_factor(0.675) == pytest.approx(0.5)


REQUEST = "Write a function in C++ that takes a list of numbers and returns their sum."


def test_requests_are_the_short_instructions_of_the_corpus() -> None:
    assert request_of(f"Instruction:\n{REQUEST}\n\nResponse:\nint sum;") == REQUEST
    assert request_of(f"Instruction:\n{REQUEST}\n\n1, 2\n\nResponse:\n3") == REQUEST
    others = (
        REQUEST,
        "Instruction:\nToo short",
        "Instruction:\n" + "word " * 61,
        "Instruction:\nOne two three\nfour five",
    )
    assert [request_of(text) for text in others] == [None] * len(others)


def test_a_hasty_request_ends_where_a_detail_begins() -> None:
    rng = random.Random(0)
    found = {hasty(REQUEST, rng) for _ in range(200)}
    assert {"Write a function.", "write a function in c++"} < found
    assert all(text is not None and REQUEST.lower().startswith(text.lower().rstrip(".")) for text in found)
    assert hasty("Which questions has nobody asked?", rng) is None
    assert {hasty("How do birds find their way in winter?", rng) for _ in range(20)} == {
        "How do birds find their way?",
        "how do birds find their way",
    }


def test_every_everyday_request_has_a_rewrite_and_every_first_sentence_is_used() -> None:
    for task in read_tasks():
        firsts = [task.firsts_for(raw) for raw in task.raw]
        assert all(firsts), task.raw
        assert set(task.first) == {first for fitting in firsts for first in fitting}


def test_everyday_pairs_are_distinct_filled_and_none_of_the_demonstration() -> None:
    pairs = list(everyday_pairs(5000, seed=0))
    assert pairs == list(everyday_pairs(5000, seed=0))
    raws = {raw.lower().strip(" .?!") for raw, _ in pairs}
    assert len({raw for raw, _ in pairs}) == 5000
    assert not any("{" in text or "}" in text for pair in pairs for text in pair)
    assert not raws & {prompt.lower() for prompt in PROMPTS}


def test_requests_of_the_corpus_become_pairs(tmp_path: Path) -> None:
    poem = "Write a poem about the sea, with rhymes."
    documents = [f"Instruction:\n{text}\n\nResponse:\nint sum;" for text in (REQUEST, REQUEST, f"{REQUEST}..", poem)]
    documents.append("Once upon a time there was a king.")
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": text, "kind": "prose"}) + "\n" for text in documents))
    pairs = tmp_path / "pairs"
    rows = [
        {"raw_prompt": "How do I ride a bicycle?", "enhanced_prompt": enhanced, "source": "oneprompted_v1_synthetic"}
        for enhanced in (
            "Explain how to ride a bicycle.",
            "Write a program of riding a bicycle.",
            "Explain how to swim.",
        )
    ]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    # Every second request for code is left out.
    assert list(tokens.read_requests(corpus, pairs)) == [REQUEST, poem, "How do I ride a bicycle?"]
    taken = select_pairs(pairs, tmp_path / "out.jsonl", corpus=corpus)
    assert taken.pop(EVERYDAY) == LIMITS[EVERYDAY]
    assert taken == {"corpus_code_request": 1, "corpus_request": 1, "oneprompted_v1_synthetic": 1}
    records = [record for record in read_records(tmp_path / "out.jsonl").records if record.source != EVERYDAY]
    assert {r.enhanced_prompt for r in records} == {REQUEST, poem, "Explain how to ride a bicycle."}
    assert all(len(r.raw_prompt) < len(r.enhanced_prompt or "") for r in records)


def test_selected_pairs_are_capped_by_source_and_take_the_failed_versions(tmp_path: Path) -> None:
    def row(source: str, number: int, words: int = 5) -> dict[str, Any]:
        enhanced = " ".join([source, *["word"] * (words - 1)])
        return {"raw_prompt": f"{source} {number}", "enhanced_prompt": enhanced, "source": source, "licence": "x"}

    pairs = [row("disfl_qa", i) for i in range(LIMITS["disfl_qa"] + 1)]
    pairs += [
        row(name, i) for name in ("rar_csqa_gpt-4", "rar_coin", "unknown") for i in range(LIMITS["rar_csqa*"] + 1)
    ]
    pairs += [row("awesome_chatgpt_prompts", 0, 80), row("awesome_chatgpt_prompts", 1, 81)]
    preferences = [
        {"raw_prompt": "a", "success": "A better", "failed": "worse", "source": "oneprompted_pairwise"},
        {"raw_prompt": "b", "success": "B better", "source": "oneprompted_pairwise"},
        {"raw_prompt": "same", "success": "same ", "failed": "worse", "source": "oneprompted_pairwise"},
    ]
    for name, rows in (("pairs", pairs), ("preferences", preferences)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "held_out").write_text(json.dumps({"raw_prompt": "disfl_qa 7"}))
    taken = select_pairs(tmp_path / "pairs", tmp_path / "out.jsonl", tmp_path / "preferences", [tmp_path / "held_out"])
    assert taken.pop("repeat held-out texts") == 1
    assert taken["disfl_qa"] == LIMITS["disfl_qa"]
    assert (taken["rar_csqa_gpt-4"], taken["rar_coin"]) == (LIMITS["rar_csqa*"], LIMITS["rar_*"])
    assert "unknown" not in taken
    assert (taken["awesome_chatgpt_prompts"], taken["oneprompted_pairwise"]) == (1, 2)
    records = read_records(tmp_path / "out.jsonl").records
    assert len(records) == sum(taken.values())
    assert {r.raw_prompt: r.failed_prompts for r in records if r.source.endswith("wise")} == {"a": ("worse",), "b": ()}
