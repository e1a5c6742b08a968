"""The byte-level BPE tokenizers of the small backbones.

Byte-level, so that no character is ever unknown and code, newlines and placeholders survive a round trip;
digits are split one by one, so that a number of the raw prompt can be copied exactly.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

GENERATOR_SENTINELS = 32
ENCODER_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
GENERATOR_SPECIALS = ["<pad>", "</s>", "<unk>"]


def train_bpe(texts: Iterable[str], vocab_size: int, specials: list[str]) -> Tokenizer:
    """Learn a byte-level BPE of ``vocab_size`` entries, the special tokens first."""
    tokenizer = Tokenizer(BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def sentinel_tokens() -> list[str]:
    """T5's sentinels, named as T5 names them."""
    return [f"<extra_id_{i}>" for i in range(GENERATOR_SENTINELS)]


def generator_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A T5-style tokenizer: ``</s>`` is appended, the sentinels take the last ids."""
    tokenizer = train_bpe(texts, vocab_size - GENERATOR_SENTINELS, GENERATOR_SPECIALS)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in sentinel_tokens()])
    eos = ("</s>", tokenizer.token_to_id("</s>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[eos])
    return tokenizer


def encoder_tokenizer(generator: Tokenizer) -> Tokenizer:
    """A RoBERTa-style tokenizer with the same merges as the generator's: ``<s> text </s>``."""
    spec = json.loads(generator.to_str())
    pieces = [t for t in spec["model"]["vocab"] if t not in GENERATOR_SPECIALS]
    vocab = {token: i for i, token in enumerate([*ENCODER_SPECIALS, *pieces])}
    merges = [tuple(m) for m in spec["model"]["merges"]]
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = generator.pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in ENCODER_SPECIALS])
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", vocab["</s>"]), ("<s>", vocab["<s>"]), trim_offsets=False, add_prefix_space=False
    )
    return tokenizer


def save_generator_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the tokenizer in hub format."""
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=sentinel_tokens(),
    ).save_pretrained(folder)


def save_encoder_tokenizer(tokenizer: Tokenizer, folder: Path, max_tokens: int) -> None:
    """Write the tokenizer in hub format; ``max_tokens`` is what the encoder's positions can hold."""
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=max_tokens,
    ).save_pretrained(folder)
