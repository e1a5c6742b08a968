"""The gate of every export: each graph against torch, then the whole generation token by token."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from tokenizers import Tokenizer
from torch import Tensor

from neuro_latent_core.tokens import both_ends, without_control
from neuro_latent_export.decoder_graphs import cache_names
from neuro_latent_export.errors import ExportError
from neuro_latent_export.graphs import ENCODER_PATHS, PROJECTOR_PATH, GraphSpec, Sizes, example_inputs
from neuro_latent_export.plain import System
from neuro_latent_trainer.backbones import ids_of, special_ends
from neuro_latent_trainer.model import MAX_SOURCE_TOKENS

GRAPH_TOLERANCE = 2e-4
"""The largest difference allowed between ONNX and torch in float32, relative to the largest value of the output."""

PROMPTS = 64
"""How many prompts the whole generation is compared on."""
MAX_LENGTH = 48
"""How many tokens of each are compared."""
BATCH = 16

CHECKED_AXES = ({"batch": 1, "tokens": 5}, {"batch": 3, "tokens": 17})
"""Sizes other than those of tracing."""

DECODER_PATHS = ("t5_decoder/1/prefill.onnx", "t5_decoder/1/step.onnx")

Ids = npt.NDArray[np.int64]

Sessions = dict[str, ort.InferenceSession]
"""By path in the repository."""


class ParityError(ExportError):
    """A graph does not compute what torch computes; nothing may be published."""


@dataclass(frozen=True)
class GraphParity:
    """Agreement of one graph with torch."""

    path: str
    max_difference: float
    tolerance: float = GRAPH_TOLERANCE


@dataclass(frozen=True)
class GenerationParity:
    """Agreement of the whole generation with torch."""

    prompts: int
    identical: int
    max_length: int


def open_session(path: Path) -> ort.InferenceSession:
    """An ONNX Runtime session on the CPU; its threads sleep while another session works."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@torch.no_grad()
def check_graph(spec: GraphSpec, session: ort.InferenceSession) -> GraphParity:
    """Compare all float outputs, and the integer outputs exactly.

    Raises:
        ParityError: a name or an axis differs from the contract, or a value from torch.
    """
    for ours, theirs in ((spec.inputs, session.get_inputs()), (spec.outputs, session.get_outputs())):
        if [t.name for t in ours] != [t.name for t in theirs]:
            raise ParityError(f"{spec.path}: tensors {[t.name for t in theirs]}, expected {[t.name for t in ours]}")
    worst = 0.0
    for seed, axes in enumerate(CHECKED_AXES):
        inputs = example_inputs(spec, axes, seed)
        expected = spec.module(*inputs)
        expected = (expected,) if isinstance(expected, Tensor) else expected
        feeds = {t.name: value.numpy() for t, value in zip(spec.inputs, inputs, strict=True)}
        for tensor, want, got in zip(spec.outputs, expected, session.run(None, feeds), strict=True):
            want_array = want.numpy()
            if want_array.shape != got.shape:
                raise ParityError(f"{spec.path}: {tensor.name} has shape {got.shape}, expected {want_array.shape}")
            if want.dtype == torch.int64:
                if not np.array_equal(want_array, got):
                    raise ParityError(f"{spec.path}: {tensor.name} differs from torch")
            else:
                worst = max(worst, _difference(want_array, got))
    if worst > GRAPH_TOLERANCE:
        raise ParityError(
            f"{spec.path}: differs from torch by {worst:.2e} of its largest value; allowed {GRAPH_TOLERANCE}"
        )
    return GraphParity(spec.path, worst)


def _difference(want: npt.NDArray[Any], got: npt.NDArray[Any]) -> float:
    """The largest difference, relative to the largest value."""
    difference = float(np.abs(want - got).max()) / max(float(np.abs(want).max()), 1e-6)
    return difference if np.isfinite(difference) else np.inf


class StaticDecoder:
    """The two decoder graphs over a cache of a fixed number of columns, for checks: simple, not fast.

    ``B`` rows, ``W`` tokens a row, ``Q`` encoder tokens, ``D`` model width.
    """

    def __init__(
        self, sessions: Sessions, sizes: Sizes, hidden_BQD: npt.NDArray[np.float32], mask_BQ: Ids, columns: int
    ) -> None:
        prefill, self._step = (sessions[path] for path in DECODER_PATHS)
        rows = len(hidden_BQD)
        cross = prefill.run(None, {"encoder_hidden_states": hidden_BQD})
        self._inputs = {tensor.name: tensor.shape for tensor in self._step.get_inputs()}
        self._present = cache_names("present", "decoder", sizes.decoder_layers)
        if "columns" in self._inputs:  # TensorRT's: the cache has a fixed width
            columns = self._inputs["past_key_values.0.decoder.key"][2]
        shape = (rows, sizes.heads, columns, sizes.head_width)
        self._feeds = {
            "encoder_attention_mask": mask_BQ,
            "candidates": np.zeros(1, dtype=np.int64),
            **dict(zip(cache_names("past_key_values", "encoder", sizes.decoder_layers), cross, strict=True)),
            # Not zeros: what a column holds before it is written may not matter.
            **{
                n: np.full(shape, 7.0, np.float32)
                for n in cache_names("past_key_values", "decoder", sizes.decoder_layers)
            },
        }
        self.lengths_B = np.zeros(rows, dtype=np.int64)

    def run(self, tokens_BW: Ids, output: str) -> npt.NDArray[Any]:
        """Feed some tokens a row; returns one output of the step, [B, W] or [B, W, vocabulary]."""
        feeds = {"decoder_input_ids": tokens_BW, "cache_lengths": self.lengths_B, **self._feeds}
        if "columns" in self._inputs:
            feeds["columns"] = np.array([self.lengths_B.max() + tokens_BW.shape[1]])
        wanted, *present = self._step.run([output, *self._present], feeds)
        self._feeds |= {n.replace("present", "past_key_values"): v for n, v in zip(self._present, present, strict=True)}
        self.lengths_B = self.lengths_B + tokens_BW.shape[1]
        result: npt.NDArray[Any] = wanted
        return result


@torch.no_grad()
def check_decoder(model: System, sessions: Sessions) -> GraphParity:
    """Compare the log-probabilities of random texts, fed in pieces of several widths, with Hugging Face's T5.

    Raises:
        ParityError: they differ by more than :data:`GRAPH_TOLERANCE`, relative to the largest.
    """
    t5, sizes = model.generator_model, Sizes.of(model)
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for rows, encoder_tokens, pieces in ((1, 5, (1, 1, 1)), (3, 37, (4, 1, 150))):
        columns = sum(pieces)
        hidden_BQD = torch.randn(rows, encoder_tokens, sizes.generator_width, generator=generator)
        mask_BQ = torch.ones(rows, encoder_tokens, dtype=torch.int64)
        mask_BQ[0, encoder_tokens - encoder_tokens // 3 :] = 0
        ids_BT = torch.randint(3, min(100, sizes.vocabulary), (rows, columns), generator=generator)
        logits = t5(encoder_outputs=(hidden_BQD,), attention_mask=mask_BQ, decoder_input_ids=ids_BT).logits
        want = logits.log_softmax(-1).numpy()
        decoder = StaticDecoder(sessions, sizes, hidden_BQD.numpy(), mask_BQ.numpy(), columns)
        parts = np.split(ids_BT.numpy(), np.cumsum(pieces)[:-1], axis=1)
        got = np.concatenate([decoder.run(part, "logprobs") for part in parts], axis=1)
        worst = max(worst, _difference(want, got))
    if worst > GRAPH_TOLERANCE:
        raise ParityError(
            f"the decoder graphs differ from torch by {worst:.2e} of the largest value; allowed {GRAPH_TOLERANCE}"
        )
    return GraphParity(DECODER_PATHS[1], worst)


def token_feeds(model: System, texts: list[str]) -> dict[str, Ids]:
    """The tokens that a system reads of some prompts, as :func:`encode` takes them."""
    tokens = {"t5": model.generator.tokenize(texts, MAX_SOURCE_TOKENS)}
    if model.encoder:
        tokens["encoder"] = model.encoder.tokenize(texts)
    names = (("ids", "input_ids"), ("mask", "attention_mask"))
    return {f"{of}_{short}": found[name].numpy() for of, found in tokens.items() for short, name in names}


def encode(sessions: Sessions, feeds: dict[str, Ids]) -> npt.NDArray[np.float32]:
    """T5 encoder states over soft prompts and prompt: [B, P + S, D].

    Args:
        sessions: by path in the repository.
        feeds: ``t5_ids``, ``t5_mask`` [B, S] and, where there is an encoder, ``encoder_ids``, ``encoder_mask`` [B, L];
            all int64.
    """
    encoder, t5_encoder = ENCODER_PATHS
    t5_feeds: dict[str, Any] = {"input_ids": feeds["t5_ids"], "attention_mask": feeds["t5_mask"]}
    if encoder in sessions:
        tokens = {"input_ids": feeds["encoder_ids"], "attention_mask": feeds["encoder_mask"]}
        (embedding_BE,) = sessions[encoder].run(None, tokens)
        (t5_feeds["soft_prompts"],) = sessions[PROJECTOR_PATH].run(["soft_prompts"], {"raw_embedding": embedding_BE})
    (hidden_BQD,) = sessions[t5_encoder].run(None, t5_feeds)
    result: npt.NDArray[np.float32] = hidden_BQD
    return result


def start_decoder(model: System, sessions: Sessions, feeds: dict[str, Ids], columns: int) -> StaticDecoder:
    """The decoder over the prompts of a batch, whose tokens are as for :func:`encode`."""
    sizes, mask_BS = Sizes.of(model), feeds["t5_mask"]
    mask_BQ = np.concatenate([np.ones((len(mask_BS), sizes.soft_prompt_tokens), np.int64), mask_BS], axis=1)
    return StaticDecoder(sessions, sizes, encode(sessions, feeds), mask_BQ, columns)


def greedy(model: System, sessions: Sessions, feeds: dict[str, Ids]) -> list[list[int]]:
    """Greedy decoding over the exported graphs, from token ids (as for :func:`encode`) to token ids."""
    decoder, rows = start_decoder(model, sessions, feeds, MAX_LENGTH), len(feeds["t5_mask"])
    token_B = np.full(rows, model.generator_model.config.decoder_start_token_id, dtype=np.int64)
    written: list[list[int]] = [[] for _ in range(rows)]
    done = np.zeros(rows, dtype=bool)
    for _ in range(MAX_LENGTH):
        token_B = decoder.run(token_B[:, None], "next_token")[:, 0]
        done |= token_B == model.generator.eos_id
        for row in np.flatnonzero(~done):
            written[row].append(int(token_B[row]))
        if done.all():
            break
    return written


def check_tokenizers(model: System, folder: Path, prompts: list[str]) -> None:
    """The ``tokenizer.json`` files that are served give the ids that torch was given, also of a prompt that is too
    long, and read no special token out of a prompt.

    Raises:
        ParityError: a prompt has other ids.
    """
    tokenizers = [("generator", model.generator.tokenizer, MAX_SOURCE_TOKENS, model.generator.prefix)]
    if model.encoder:
        tokenizers.append(("encoder", model.encoder.tokenizer, model.encoder.max_tokens, ""))
    for name, tokenizer, most, prefix in tokenizers:
        served = Tokenizer.from_file(str(folder / "tokenizer" / "1" / f"{name}_tokenizer.json"))
        served.encode_special_tokens = True
        before, after = special_ends(tokenizer)
        texts = [*prompts, " ".join(prompts * 40), f"Say {tokenizer.eos_token}{tokenizer.unk_token} twice."]
        texts = [prefix + text for text in texts]
        for number, (prompt, want) in enumerate(zip(texts, ids_of(tokenizer, texts, most), strict=True)):
            ids = served.encode(prompt, add_special_tokens=False).ids
            ids = without_control(ids, served.get_added_tokens_decoder())
            if [*before, *both_ends(ids, most - len(before) - len(after)), *after] != want:
                raise ParityError(f"prompt {number}: the served tokenizer of the {name} gives other ids than torch's")


def check_generation(model: System, sessions: Sessions, prompts: list[str]) -> GenerationParity:
    """Compare greedy decoding over the graphs with Hugging Face ``generate``, token by token.

    Raises:
        ParityError: a prompt gives other tokens; the message names the prompt's number and the first difference.
    """
    for first in range(0, len(prompts), BATCH):
        texts = prompts[first : first + BATCH]
        got = greedy(model, sessions, token_feeds(model, texts))
        for i, (want_row, got_row) in enumerate(zip(model.generate_ids(texts, MAX_LENGTH), got, strict=True)):
            if want_row != got_row:
                at = next((k for k, (a, b) in enumerate(zip(want_row, got_row, strict=False)) if a != b), -1)
                raise ParityError(f"prompt {first + i}: the exported graphs write other tokens than torch from {at} on")
    return GenerationParity(len(prompts), len(prompts), MAX_LENGTH)


def as_json(graphs: list[GraphParity], generation: GenerationParity) -> dict[str, Any]:
    """The parity section of the manifest."""
    return {"graphs": [asdict(g) for g in graphs], "generation": asdict(generation)}
