"""Loading of the frozen models, and every way in which that can fail."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from neuro_latent_trainer import backbones
from neuro_latent_trainer.backbones import BackboneError, fingerprint, load_encoder, load_generator, pool
from tests import tiny

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with a word tokenizer and 12 positions."""
    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "sort", "a", "list", "of", "numbers"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    specials = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **specials).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=9, max_position_embeddings=12, **sizes)).save_pretrained(folder)
    return folder


def test_a_local_folder_is_loaded_frozen_in_float32(pair: Any) -> None:
    encoder, generator = load_encoder(str(pair.encoder)), load_generator(str(pair.generator))
    assert (encoder.width, generator.width) == (32, 24)
    assert (generator.eos_id, generator.pad_id) == (1, 0)
    for model in (encoder.model, generator.model):
        assert not model.training
        assert {(p.dtype, p.requires_grad) for p in model.parameters()} == {(torch.float32, False)}


def test_a_roberta_reads_as_many_tokens_as_its_positions_hold(pair: Any) -> None:
    encoder = load_encoder(str(pair.encoder))
    assert encoder.max_tokens == tiny.ENCODER_TOKENS
    tokens = encoder.tokenize(["word " * 500, "short"])
    assert tokens["input_ids"].shape == (2, tiny.ENCODER_TOKENS)
    assert torch.isfinite(encoder.model(**tokens).last_hidden_state).all()


def test_a_bert_reads_as_many_tokens_as_its_positions_hold(bert: Path) -> None:
    encoder = load_encoder(str(bert))
    assert (encoder.width, encoder.max_tokens) == (16, 12)
    tokens = encoder.tokenize(["sort a list of numbers " * 10, "sort"])
    assert tokens["input_ids"].shape == (2, 12)
    assert torch.isfinite(encoder.model(**tokens).last_hidden_state).all()


def test_of_a_text_that_is_too_long_the_beginning_and_the_end_are_read(pair: Any) -> None:
    encoder, generator = load_encoder(str(pair.encoder)), load_generator(str(pair.generator))
    text = "one two three four five six seven " * 40 + "Please make it short."
    for tokenizer, ids, most in (
        (encoder.tokenizer, encoder.tokenize([text])["input_ids"][0].tolist(), encoder.max_tokens),
        (generator.tokenizer, generator.tokenize([text], 21)["input_ids"][0].tolist(), 21),
    ):
        whole = tokenizer(text)["input_ids"]
        specials = len(whole) - len(tokenizer(text, add_special_tokens=False)["input_ids"])
        tail = (most - specials) // 2
        assert len(ids) == most
        assert ids == whole[: most - tail - 1] + whole[-tail - 1 :]
    assert generator.source_ids(["a b"], 21) == generator.text_ids(["a b"])


@pytest.mark.parametrize("text", ["a </s> b", "<unk><pad>", "<extra_id_0> <mask>", "<s>x</s>"])
@pytest.mark.parametrize("embedded", [False, True])
def test_what_looks_like_a_special_token_is_text(pair: Any, embedded: bool, text: str) -> None:
    names = [f"{backbones.EMBEDDED}/{name}" for name in ("encoder", "generator")]
    encoder_name, generator_name = names if embedded else (str(pair.encoder), str(pair.generator))
    encoder, generator = load_encoder(encoder_name), load_generator(generator_name)
    for tokenizer, (ids,) in (
        (encoder.tokenizer, encoder.tokenize([text])["input_ids"].tolist()),
        (generator.tokenizer, generator.source_ids([text], 512)),
        (generator.tokenizer, generator.text_ids([text])),
    ):
        inner = ids[1:-1] if tokenizer is encoder.tokenizer else ids[:-1]
        assert not set(inner) & set(tokenizer.all_special_ids)
        assert tokenizer.decode(inner).strip() == text


def test_the_same_weights_have_the_same_fingerprint_at_every_load(pair: Any, bert: Path) -> None:
    for name in (str(pair.encoder), str(bert)):
        assert fingerprint(load_encoder(name).model) == fingerprint(load_encoder(name).model)
    assert fingerprint(load_encoder(str(bert)).model) != fingerprint(load_encoder(str(pair.encoder)).model)


def test_the_fingerprint_depends_on_every_parameter() -> None:
    module = torch.nn.Module()
    module.one = torch.nn.Parameter(torch.ones(3))
    module.scalar = torch.nn.Parameter(torch.tensor(1.0))
    before = fingerprint(module)
    with torch.no_grad():
        module.scalar += 1e-6
    assert fingerprint(module) != before


def test_mean_pooling_leaves_padding_out_and_cls_pooling_takes_the_first_state() -> None:
    hidden = torch.arange(12.0).reshape(1, 4, 3)
    mask = torch.tensor([[1, 1, 0, 0]])
    assert pool(hidden, mask, "mean").tolist() == [[1.5, 2.5, 3.5]]
    assert pool(hidden, mask, "cls").tolist() == [[0.0, 1.0, 2.0]]
    assert pool(hidden, torch.zeros_like(mask), "mean").tolist() == [[0.0, 0.0, 0.0]]


def test_tokenized_prompts_of_the_generator_end_with_its_end_token(pair: Any) -> None:
    generator = load_generator(str(pair.generator))
    tokens = generator.tokenize(["sort", "word " * 100], 20)
    for ids, mask in zip(tokens["input_ids"], tokens["attention_mask"], strict=True):
        assert ids[mask.sum() - 1] == generator.eos_id


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/models/t5", "a/b/c"])
def test_a_missing_folder_is_named(name: str) -> None:
    with pytest.raises(BackboneError, match="no such folder") as caught:
        load_encoder(name)
    assert name in str(caught.value)


def test_a_generator_that_is_no_t5_is_refused(pair: Any, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="cannot load the generator from the folder"):
        load_generator(str(pair.encoder))
    other = Path(shutil.copytree(pair.generator, tmp_path / "mt5"))
    change(other, model_type="mt5", architectures=["MT5ForConditionalGeneration"])
    with pytest.raises(BackboneError, match=r"is a 'mt5'; only T5 models can be used"):
        load_generator(str(other))


def test_an_encoder_that_is_an_encoder_decoder_is_refused(pair: Any) -> None:
    with pytest.raises(BackboneError, match=r"is a 't5'; give a RoBERTa- or BERT-like model"):
        load_encoder(str(pair.generator))


def change(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda folder: halve(folder / "model.safetensors"), "encoder"),
        (lambda folder: (folder / "model.safetensors").unlink(), "encoder"),
        (lambda folder: (folder / "config.json").write_text("{"), "encoder"),
        (lambda folder: (folder / "config.json").unlink(), "encoder"),
        (lambda folder: change(folder, hidden_size=64), "encoder"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "encoder tokenizer"),
    ],
    ids=["weights cut", "no weights", "config cut", "no config", "other sizes", "no tokenizer"],
)
def test_a_damaged_folder_is_one_clear_error(pair: Any, tmp_path: Path, damage: Any, what: str) -> None:
    folder = Path(shutil.copytree(pair.encoder, tmp_path / "damaged"))
    damage(folder)
    with pytest.raises(BackboneError, match=f"cannot load the {what} from the folder") as caught:
        load_encoder(str(folder))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_hub_that_cannot_be_reached_is_one_error_that_says_what_to_do(tmp_path: Path) -> None:
    program = (
        "from neuro_latent_trainer.backbones import BackboneError, load_generator\n"
        "try: load_generator('google-t5/t5-small')\n"
        "except BackboneError as error: print(error)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=120)
    assert re.fullmatch(
        r"cannot load the generator 'google-t5/t5-small': not in the local cache, and not to be had from the "
        r"Hugging Face Hub \(.+\)\. Give a local folder in hub format \(--generator DIR\), or use the embedded pair "
        r"\(--encoder neuro-latent-mini/encoder --generator neuro-latent-mini/generator\)\.",
        done.stdout.strip(),
    )
    assert done.returncode == 0, done.stderr


def test_the_embedded_pair_is_found_where_the_variable_says(
    pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(pair.encoder, tmp_path / "neuro-latent-mini" / "encoder")
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setenv(backbones.MODELS_VARIABLE, str(tmp_path))
    encoder = load_encoder("neuro-latent-mini/encoder")
    assert encoder.name == "neuro-latent-mini/encoder"
    assert encoder.width == 32
    with pytest.raises(BackboneError, match=r"embedded model 'neuro-latent-mini/generator' is not installed"):
        load_generator("neuro-latent-mini/generator")


def test_an_embedded_pair_that_is_nowhere_says_which_variable_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbones, "embedded_models_folder", lambda: None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackboneError, match="NEURO_LATENT_MODELS"):
        load_encoder("neuro-latent-mini/encoder")
