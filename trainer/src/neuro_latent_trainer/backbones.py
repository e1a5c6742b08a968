"""The frozen models: loading by Hub name or local folder, tokenizing, pooling.

Shape letters: ``B`` batch, ``L`` encoder tokens, ``S`` source tokens, ``P`` soft prompts, ``Q`` = P + S, ``T`` target
tokens, ``E`` encoder width, ``D`` generator width, ``V`` vocabulary.
"""

import hashlib
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DynamicCache,
    EncoderDecoderCache,
    PreTrainedTokenizerBase,
)
from transformers.modeling_outputs import BaseModelOutput

from neuro_latent_core.tokens import both_ends, without_control
from neuro_latent_trainer.choices import EMBEDDED, Pooling, Precision
from neuro_latent_trainer.errors import TrainerError

MODELS_VARIABLE = "NEURO_LATENT_MODELS"

T5_TOKENIZERS = ("tokenizer.json", "spiece.model")
"""The files that a T5's tokenizer may be in."""


class BackboneError(TrainerError):
    """A frozen model cannot be loaded or does not fit."""


@dataclass(frozen=True)
class _Frozen:
    name: str
    model: Any  # a transformers model; its call and its config are untyped
    tokenizer: PreTrainedTokenizerBase
    width: int

    @cached_property
    def sha256(self) -> str:
        """The :func:`fingerprint` of the weights, taken once: they are frozen."""
        return fingerprint(self.model)


@dataclass(frozen=True)
class Encoder(_Frozen):
    """A frozen text encoder with its tokenizer."""

    max_tokens: int

    def tokenize(self, texts: list[str], device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask``, int64 [B, L]: of a longer text its beginning and its end."""
        pad_id = self.tokenizer.pad_token_id
        assert pad_id is not None
        return padded(ids_of(self.tokenizer, texts, self.max_tokens), pad_id, device)


@dataclass(frozen=True)
class Generator(_Frozen):
    """A frozen T5 with its tokenizer.

    Attributes:
        prefix: text that the T5 was fine-tuned to read before every prompt.
    """

    eos_id: int
    pad_id: int
    prefix: str = ""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embeddings.weight.device

    @property
    def embeddings(self) -> nn.Embedding:
        """The input embedding table, [vocabulary, D]."""
        table: nn.Embedding = self.model.get_input_embeddings()
        return table

    def tokenize(self, texts: list[str], max_tokens: int, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask``, int64 [B, S]: see :meth:`source_ids`."""
        return padded(self.source_ids(texts, max_tokens), self.pad_id, device)

    def source_ids(self, texts: list[str], max_tokens: int) -> list[list[int]]:
        """Token ids of raw prompts behind the prefix, each ending with ``</s>``: of a longer one its beginning and its
        end."""
        return ids_of(self.tokenizer, [self.prefix + text for text in texts], max_tokens)

    def text_ids(self, texts: list[str]) -> list[list[int]]:
        """Token ids of whole texts, each ending with ``</s>``."""
        return ids_of(self.tokenizer, texts, None)

    def decode(self, ids: list[int]) -> str:
        """The text of token ids, special tokens left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def encode_soft(self, soft_BPD: Tensor, ids_BS: Tensor, mask_BS: Tensor) -> tuple[Tensor, Tensor]:
        """Run T5's encoder over soft prompts and prompt: hidden states [B, Q, D] and their mask [B, Q]."""
        inputs_BQD = torch.cat([soft_BPD, self.embeddings(ids_BS)], dim=1)
        mask_BQ = torch.cat([mask_BS.new_ones(soft_BPD.shape[:2]), mask_BS], dim=1)
        return self.model.encoder(inputs_embeds=inputs_BQD, attention_mask=mask_BQ).last_hidden_state, mask_BQ

    def logits(self, hidden_BQD: Tensor, mask_BQ: Tensor, labels_BT: Tensor) -> Tensor:
        """Teacher-forced logits [B, T, V] of ``labels_BT`` (IGNORE where padded)."""
        return self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=hidden_BQD),
            attention_mask=mask_BQ,
            decoder_input_ids=self.model._shift_right(labels_BT),
            use_cache=False,
        ).logits

    @torch.no_grad()
    def write_ids(self, hidden_BQD: Tensor, mask_BQ: Tensor, max_length: int, **options: Any) -> list[list[int]]:
        """Token ids written by Hugging Face ``generate``, without start, padding and ``</s>``.

        ``max_length`` is the most tokens written; ``options`` go to ``generate`` (greedy by default).
        """
        out = self.model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=hidden_BQD),
            attention_mask=mask_BQ,
            max_new_tokens=max_length,
            # Given, because generate() sizes its own cache by the encoder's layers, which T5s may have fewer of.
            past_key_values=EncoderDecoderCache(DynamicCache(), DynamicCache()),
            **{"do_sample": False, **options},
        )
        rows = []
        for row in out[:, 1:].tolist():
            end = row.index(self.eos_id) if self.eos_id in row else len(row)
            rows.append(row[:end])
        return rows


def ids_of(tokenizer: PreTrainedTokenizerBase, texts: list[str], max_tokens: int | None) -> list[list[int]]:
    """Token ids with the tokenizer's special tokens at the ends; no text is read as a special token.

    Of a text that is longer than ``max_tokens`` the beginning and the end are kept, half of the room each: requests
    stand at either end of a pasted text.
    """
    if not texts:
        return []
    bare: list[list[int]] = tokenizer(texts, add_special_tokens=False, split_special_tokens=True, verbose=False)[
        "input_ids"
    ]
    added = tokenizer.added_tokens_decoder
    bare = [without_control(ids, added) for ids in bare]
    before, after = special_ends(tokenizer)
    room = None if max_tokens is None else max(1, max_tokens - len(before) - len(after))
    return [[*before, *(ids if room is None else both_ends(ids, room)), *after] for ids in bare]


def special_ends(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and behind a text."""
    mark: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    framed: list[int] = tokenizer("a")["input_ids"]
    at = next(i for i in range(len(framed)) if framed[i : i + len(mark)] == mark)
    return framed[:at], framed[at + len(mark) :]


def padded(rows: list[list[int]], pad_id: int, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """``input_ids`` and ``attention_mask``, int64 [B, L], padded on the right."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([row + [pad_id] * (width - len(row)) for row in rows])
    mask = (torch.arange(width) < torch.tensor([[len(row)] for row in rows])).long()
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def pool(hidden_BLE: Tensor, mask_BL: Tensor, pooling: Pooling) -> Tensor:
    """One vector a text [B, E]: the mean over real tokens, or the first token's state."""
    if pooling == "cls":
        return hidden_BLE[:, 0]
    weights_BL1 = mask_BL.unsqueeze(-1).to(hidden_BLE.dtype)
    return (hidden_BLE * weights_BL1).sum(1) / weights_BL1.sum(1).clamp(min=1)


def embedded_models_folder() -> Path | None:
    """The folder that holds ``neuro-latent-mini``: ``$NEURO_LATENT_MODELS``, or the package's own."""
    candidates = [Path(__file__).parent / "models"]  # a link in the checkout
    if variable := os.environ.get(MODELS_VARIABLE):
        candidates.insert(0, Path(variable))
    return next((c for c in candidates if (c / EMBEDDED).is_dir()), None)


def resolve(name: str) -> str:
    """A path for a local folder or an embedded model, else ``name`` itself as a Hub name.

    Raises:
        BackboneError: an embedded model is asked for and is not there, or a path does not exist.
    """
    if Path(name).is_dir():
        return str(Path(name))
    if name == EMBEDDED or name.startswith(f"{EMBEDDED}/"):
        folder = embedded_models_folder()
        if folder is None or not (folder / name).is_dir():
            raise BackboneError(
                f"the embedded model {name!r} is not installed; set {MODELS_VARIABLE} to the project's models/ folder"
            )
        return str(folder / name)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise BackboneError(f"no such folder: {name!r} (give a local folder in hub format, or a Hub name)")
    return name


def recorded_name(name: str) -> str:
    """A backbone's name as an adapter keeps it: a local folder by its whole path, to be found from anywhere."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def _load(what: str, name: str, loader: Any, **options: Any) -> Any:
    path = resolve(name)
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        return loader.from_pretrained(path, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if Path(path).is_dir():
            raise BackboneError(f"cannot load the {what} from the folder {path!r}: {_first_line(error)}") from error
        raise BackboneError(
            f"cannot load the {what} {name!r}: not in the local cache, and not to be had from the Hugging Face Hub "
            f"({_first_line(error)}). "
            f"Give a local folder in hub format (--{what.split()[0]} DIR), or use the embedded pair "
            f"(--encoder {EMBEDDED}/encoder --generator {EMBEDDED}/generator)."
        ) from error
    finally:
        transformers.logging.set_verbosity(verbosity)
        transformers.logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def freeze(model: Any) -> Any:
    """Evaluation mode, no gradients for the parameters."""
    return model.eval().requires_grad_(False)


def max_positions(model: Any) -> int:
    """How many tokens the encoder's position table can hold, special tokens included.

    RoBERTa-like models start counting after the padding index, BERT-like ones at 0.
    """
    positions = int(getattr(model.config, "max_position_embeddings", 512))
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return positions if padding is None else positions - padding - 1


def load_encoder(name: str, device: torch.device | str = "cpu") -> Encoder:
    """Load a frozen encoder (RoBERTa, BERT or alike) in float32.

    Raises:
        BackboneError: it cannot be found or loaded; the message says what to do.
    """
    model = _load("encoder", name, AutoModel, dtype=torch.float32, attn_implementation="eager")
    if model.config.is_encoder_decoder:
        raise BackboneError(
            f"the encoder {name!r} is a {model.config.model_type!r}; give a RoBERTa- or BERT-like model"
        )
    if getattr(model, "pooler", None) is not None:
        # Never used, and random where the checkpoint has none: the fingerprint would differ from load to load.
        model.pooler = None
    model = freeze(model).to(device)
    tokenizer = _load("encoder tokenizer", name, AutoTokenizer)
    return Encoder(name, model, tokenizer, model.config.hidden_size, max_positions(model))


def load_generator(name: str, device: torch.device | str = "cpu") -> Generator:
    """Load a frozen T5 in float32.

    Raises:
        BackboneError: it cannot be found or loaded, or is no T5; the message says what to do.
    """
    model = freeze(
        _load("generator", name, AutoModelForSeq2SeqLM, dtype=torch.float32, attn_implementation="eager")
    ).to(device)
    config = model.config
    if config.model_type != "t5":
        raise BackboneError(f"the generator {name!r} is a {config.model_type!r}; only T5 models can be used")
    folder = Path(resolve(name))
    if folder.is_dir() and not any((folder / file).is_file() for file in T5_TOKENIZERS):
        # transformers would make an empty one, without a word
        raise BackboneError(
            f"the generator {name!r} has no tokenizer: no {' and no '.join(T5_TOKENIZERS)} in its folder"
        )
    tokenizer = _load("generator tokenizer", name, AutoTokenizer)
    return Generator(name, model, tokenizer, config.d_model, config.eos_token_id, config.pad_token_id)


def default_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_of(name: str) -> torch.device | None:
    """The device that ``--device`` names; None for ``auto``.

    Raises:
        ValueError: it names none, or there is none such here.
    """
    if name == "auto":
        return None
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ValueError(f"--device must be auto, cpu, cuda or cuda:N, not {name!r}")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device is {name!r}, but PyTorch finds {torch.cuda.device_count()} GPUs here")
    return device


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Products in bfloat16, where the precision says so."""
    enabled = precision == "bf16" or (precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over the names and bytes of all parameters: equal only for equal weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
