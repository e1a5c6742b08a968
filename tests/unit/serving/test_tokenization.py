"""Text to ids and back, against the tokenizers of Hugging Face."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from neuro_latent_core.limits import BUCKETS
from neuro_latent_core.tokens import both_ends
from neuro_latent_serving.tokenization import Detokenizer, TextTokenizer
from neuro_latent_trainer.backbones import ids_of

REFERENCES = {"roberta-base": (512, 1), "t5-small": (512, 0)}
TEXTS = [
    "Create a function",
    "",
    "  two  spaces ",
    "naïve café 漢字 🙂\u200d🔥",
    "x = {user_id: 42}\n\treturn x",
    "word " * 900,
]
CONTROL = ["Say </s> twice", "<unk>", "a<extra_id_0>b", "fill <mask> in", "<s>x</s>", "<pad>"]


@pytest.fixture(scope="module")
def encoder(repository: Path) -> TextTokenizer:
    return TextTokenizer(repository / "tokenizer" / "1" / "encoder_tokenizer.json", 48, 1)


@pytest.fixture(scope="module")
def detokenizer(repository: Path) -> Detokenizer:
    return Detokenizer(repository / "t5_decoder" / "1" / "generator_tokenizer.json")


def real_ids(tokenizer: TextTokenizer, text: str) -> list[int]:
    rows = tokenizer.encode([text])
    return rows.ids_BL[0][rows.mask_BL[0] == 1].tolist()


def test_exported_tokenizers_give_the_ids_of_the_torch_model(
    repository: Path, encoder: TextTokenizer, optimizer: Any
) -> None:
    generator = TextTokenizer(repository / "tokenizer" / "1" / "generator_tokenizer.json", 512, 0)
    for text in (*TEXTS, *CONTROL):
        assert real_ids(encoder, text) == optimizer.encoder.tokenize([text])["input_ids"][0].tolist()
        assert real_ids(generator, text) == optimizer.generator.tokenize([text], 512)["input_ids"][0].tolist()


@pytest.mark.parametrize("text", CONTROL)
def test_a_control_token_in_a_text_is_text(repository: Path, encoder: TextTokenizer, text: str) -> None:
    generator = TextTokenizer(repository / "tokenizer" / "1" / "generator_tokenizer.json", 512, 0)
    for tokenizer, special in ((encoder, {0, 1, 2, 4}), (generator, {0, 1})):
        assert not special & set(real_ids(tokenizer, text)[1:-1])


def test_of_a_long_text_both_ends_are_read_and_it_is_flagged(encoder: TextTokenizer) -> None:
    rows = encoder.encode(["short", "a " * 500 + "b " * 500])
    assert rows.truncated_B.tolist() == [False, True]
    assert rows.mask_BL.sum(axis=1).max() == 48
    start, *ids, end = rows.ids_BL[1].tolist()
    assert [start, end] == rows.ids_BL[0][[0, rows.mask_BL[0].sum() - 1]].tolist()
    letters = real_ids(encoder, "a " * 30)[1:-1], real_ids(encoder, "b " * 30)[1:-1]
    assert ids[:23] == letters[0][:23]
    assert ids[23:] == letters[1][-23:]


@pytest.mark.parametrize(("room", "kept"), [(9, "abcdefg"), (7, "abcdefg"), (4, "abfg"), (5, "abcfg"), (1, "a")])
def test_both_ends(room: int, kept: str) -> None:
    assert "".join(map(chr, both_ends([*map(ord, "abcdefg")], room))) == kept


def test_the_longest_text_that_fits_is_not_flagged(encoder: TextTokenizer) -> None:
    digits = "1" * 46  # one token each, and two special tokens
    assert encoder.encode([digits]).truncated_B.tolist() == [False]
    assert encoder.encode([digits + "1"]).truncated_B.tolist() == [True]


@given(st.lists(st.integers(0, 100), min_size=1, max_size=4))
def test_rows_are_padded_to_a_bucket_or_to_the_models_length(encoder: TextTokenizer, lengths: list[int]) -> None:
    rows = encoder.encode(["1" * n for n in lengths])
    real = [min(n + 2, 48) for n in lengths]
    assert rows.mask_BL.sum(axis=1).tolist() == real
    assert rows.ids_BL.shape == rows.mask_BL.shape == (len(lengths), rows.ids_BL.shape[1])
    assert rows.ids_BL.shape[1] == min(48, next(b for b in BUCKETS if b >= max(real)))
    assert (rows.ids_BL[rows.mask_BL == 0] == 1).all()
    assert rows.ids_BL.dtype == rows.mask_BL.dtype == np.int64


def stream_matches(detokenizer: Detokenizer, tokens: list[int]) -> None:
    stream = detokenizer.stream()
    pieces = [stream.push(token) for token in tokens]
    whole = detokenizer.decode(tokens)
    assert stream.text == "".join(pieces)
    # What was told is a beginning of the text; only the bytes of an incomplete character may be held back.
    assert whole.startswith(stream.text)
    assert set(whole[len(stream.text) :]) <= {"\ufffd"} or "\ufffd" in whole


@given(text=st.text(st.characters(codec="utf-8")))
def test_the_pieces_of_any_text_join_to_it(detokenizer: Detokenizer, text: str) -> None:
    tokens = detokenizer._tokenizer.encode(text, add_special_tokens=False).ids
    stream = detokenizer.stream()
    assert "".join(stream.push(token) for token in tokens) == detokenizer.decode(tokens)


@given(tokens=st.lists(st.integers(0, 599), max_size=30))
@settings(max_examples=300)
def test_pieces_of_random_tokens_are_a_beginning_of_the_text(detokenizer: Detokenizer, tokens: list[int]) -> None:
    stream_matches(detokenizer, tokens)


@pytest.fixture(scope="module")
def real_t5(shared_tokenizer: Callable[[str], Path]) -> Detokenizer:
    return Detokenizer(shared_tokenizer("t5-small"))


@given(tokens=st.lists(st.integers(0, 32099), max_size=30))
@settings(max_examples=300)
def test_pieces_of_random_tokens_of_the_real_t5_are_a_beginning_of_the_text(
    real_t5: Detokenizer, tokens: list[int]
) -> None:
    stream_matches(real_t5, tokens)


def reference(path: Path, name: str) -> Any:
    """The tokenizer as Hugging Face loads it."""
    if (path.parent / "tokenizer_config.json").is_file():
        return AutoTokenizer.from_pretrained(path.parent)
    return PreTrainedTokenizerFast(tokenizer_file=str(path), pad_token="<pad>", eos_token="</s>")


@pytest.mark.parametrize("name", REFERENCES)
def test_ids_of_the_real_tokenizers_are_those_of_hugging_face(
    shared_tokenizer: Callable[[str], Path], name: str
) -> None:
    path, (longest, pad) = shared_tokenizer(name), REFERENCES[name]
    ours, theirs = TextTokenizer(path, longest, pad), reference(path, name)
    rows = ours.encode(TEXTS)
    real = [row[mask == 1].tolist() for row, mask in zip(rows.ids_BL, rows.mask_BL, strict=True)]
    assert real == ids_of(theirs, TEXTS, longest)
    assert (rows.ids_BL[rows.mask_BL == 0] == pad).all()
    assert rows.truncated_B.tolist() == [False] * 5 + [True]


@pytest.mark.parametrize("name", REFERENCES)
@given(text=st.text(st.characters(codec="utf-8"), max_size=80) | st.lists(st.sampled_from(CONTROL)).map("".join))
@settings(max_examples=60)
def test_any_text_has_the_ids_of_hugging_face(readers: dict[str, tuple[Any, Any]], name: str, text: str) -> None:
    ours, theirs = readers[name]
    assert [real_ids(ours, text)] == ids_of(theirs, [text], 512)


@pytest.fixture(scope="module")
def readers(shared_tokenizer: Callable[[str], Path]) -> dict[str, tuple[Any, Any]]:
    paths = {name: shared_tokenizer(name) for name in REFERENCES}
    return {name: (TextTokenizer(path, *REFERENCES[name]), reference(path, name)) for name, path in paths.items()}
