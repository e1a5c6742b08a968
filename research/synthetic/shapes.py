"""Synthetic models for measurements: made here, written in hub format, exported once, kept in a cache folder.

``python -m research.synthetic.shapes t5-small --precision int4`` prints the folder of the exported repository.

Nothing is downloaded. ``t5-small`` has the reference pair's sizes and random weights (:mod:`weights` says what is done
to them), ``embedded`` is the trained pair of this repository, ``tiny`` is for trying the commands.
"""

import dataclasses
import functools
import hashlib
import inspect
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from neuro_latent_benchmarks.cli import session
from neuro_latent_benchmarks.report import BenchError, progress

ShapeName = Literal["t5-small", "embedded", "tiny"]
Style = Literal["lively", "copying"]
Log = Callable[[str], None]

SEED = 0
CACHE_VARIABLE = "NEURO_LATENT_CACHE"
LEARNED_VOCABULARY = 8192
"""The text tokenizers are learned from the sample prompts; larger vocabularies are filled up with meaningless words."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a pair, by the names of their configurations. ``t5`` is empty where the weights are trained ones."""

    summary: str
    encoder: dict[str, Any]
    t5: dict[str, Any]
    black_box_width: int = 0


SHAPES: Final = {
    "t5-small": Shape(
        "RoBERTa-base and T5-small at their true size, random weights",
        {
            "vocab_size": 50265,
            "max_position_embeddings": 514,
            "type_vocab_size": 1,
            "layer_norm_eps": 1e-5,
            "bos_token_id": 0,
            "pad_token_id": 1,
            "eos_token_id": 2,
        },
        {"vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8},
        black_box_width=1024,
    ),
    "embedded": Shape("the trained pair of this repository, neuro-latent-mini", {}, {}),
    "tiny": Shape(
        "a toy, for trying the commands",
        {
            "vocab_size": 700,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 514,
            "type_vocab_size": 1,
        },
        {"vocab_size": 600, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2},
        black_box_width=40,
    ),
}


@dataclass(frozen=True, slots=True)
class Models:
    """A prepared pair.

    Attributes:
        folder: holds all of it, and what others make of it.
        generator: the T5 in hub format, with its text tokenizer.
        numbered: the same T5, with a tokenizer whose tokens are called by their ids (for baselines that take tokens).
        numbers: that tokenizer alone, for our engine: its text is the ids, so that tokens can be compared.
    """

    shape: str
    style: Style
    folder: Path
    encoder: Path
    generator: Path
    adapter: Path
    numbered: Path
    numbers: Path


def cache_folder() -> Path:
    """``$NEURO_LATENT_CACHE``, else ``neuro-latent`` in ``$XDG_CACHE_HOME``, else ``~/.cache/neuro-latent``."""
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neuro-latent"


def prepare(name: str, style: Style, log: Log) -> Models:
    """The pair of a shape, made on first use.

    Args:
        name: of :data:`SHAPES`.
        style: what random weights write; trained ones write what they write.

    Raises:
        BenchError: there is no such shape.
    """
    if name not in SHAPES:
        raise BenchError(f"--shape {name}: there is no such shape; known are {', '.join(SHAPES)}")
    if not SHAPES[name].t5:
        style = "lively"
    import transformers

    from research.synthetic import weights

    made_by = _digest([inspect.getsource(weights).encode(), Path(__file__).read_bytes()])
    folder = _fresh(cache_folder() / "models", f"{name}-{style}", made_by)
    models = Models(
        shape=name,
        style=style,
        folder=folder,
        encoder=folder / "encoder",
        generator=folder / "generator",
        adapter=folder / "adapter",
        numbered=folder / "numbered",
        numbers=folder / "numbers.json",
    )
    if not models.numbers.is_file():  # written last
        log(f"making the models of the shape {name} ({SHAPES[name].summary}; {style})")
        transformers.utils.logging.disable_progress_bar()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _write_pair(models)
        _write_adapter(models)
        _write_numbered(models)
    return models


def repository(models: Models, precision: str, log: Log) -> Path:
    """The exported Triton repository of a pair, made on first use and again when the exporter has changed.

    Raises:
        BenchError: there is no such precision, or the export failed.
    """
    from neuro_latent_export.precision import PRECISIONS
    from neuro_latent_export.repository import export_repository

    if precision not in PRECISIONS:
        raise BenchError(f"--precision {precision}: known are {', '.join(PRECISIONS)}")
    target = _fresh(models.folder, f"repository-{precision}", _exporter())
    if not (target / "manifest.json").is_file():
        log(f"exporting {models.shape} ({models.style}, {precision}); this is done once")
        wanted = PRECISIONS[precision]
        if SHAPES[models.shape].t5 and precision != "fp32":
            # What a precision may cost is a bound for models that say something; random ones are measured whatever it
            # is, and `research.baselines` tells how far they agree.
            wanted = dataclasses.replace(wanted, max_cross_entropy_change=math.inf, min_next_token_agreement=0.0)
        try:
            export_repository(
                models.adapter,
                target,
                encoder=str(models.encoder),
                generator=str(models.generator),
                precision=wanted,
                log=log,
            )
        except RuntimeError as error:
            raise BenchError(f"--precision {precision}: the export of {models.shape} failed: {error}") from error
    return target


def prompt_ids(models: Models, count: int, tokens: int) -> list[list[int]]:
    """Token ids of ``count`` different prompts, each cut to ``tokens`` ids with ``</s>`` at its end."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(models.generator / "tokenizer.json"))
    texts = _sample_texts()
    rows: list[list[int]] = []
    for start in range(count):
        ids: list[int] = []
        for text in _cycle(texts, start * 7):
            ids += tokenizer.encode(text, add_special_tokens=False).ids
            if len(ids) >= tokens - 1:
                break
        rows.append([*ids[: tokens - 1], 1])
    return rows


def text_ids(models: Models, texts: list[str]) -> list[list[int]]:
    """Token ids of texts as the served tokenizer makes them."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(models.generator / "tokenizer.json"))
    return [tokenizer.encode(text).ids for text in texts]


def encoder_states(models: Models, rows: list[list[int]], target: Path) -> None:
    """Write T5 encoder states of token ids, by Hugging Face in float32, to an .npz: ``ids_N`` and ``hidden_N``."""
    import numpy as np
    import torch
    import transformers
    from transformers import T5ForConditionalGeneration

    transformers.utils.logging.disable_progress_bar()
    t5: Any = T5ForConditionalGeneration.from_pretrained(models.numbered, dtype=torch.float32).eval()
    arrays = {}
    with torch.no_grad():
        for number, ids in enumerate(rows):
            arrays[f"ids_{number}"] = np.array(ids, dtype=np.int64)
            arrays[f"hidden_{number}"] = t5.encoder(torch.tensor([ids])).last_hidden_state[0].numpy()
    np.savez(target, **arrays)


def _sample_texts() -> list[str]:
    from neuro_latent_trainer.sample import sample_rows

    return [row[field] for row in sample_rows() for field in ("raw_prompt", "complement") if row[field]]


def _cycle(texts: list[str], start: int) -> Iterator[str]:
    for number in range(len(texts)):
        yield texts[(start + number) % len(texts)]


def _digest(parts: list[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:12]


@functools.cache
def _exporter() -> str:
    """Which exporter and templates make a repository: asked once, so that one run has one answer."""
    import neuro_latent_export
    from neuro_latent_export.templates import TEMPLATES

    sources = [*Path(neuro_latent_export.__file__).parent.rglob("*.py"), *TEMPLATES.rglob("*.*")]
    return _digest([path.read_bytes() for path in sorted(sources) if "__pycache__" not in path.parts])


def _fresh(parent: Path, name: str, made_by: str) -> Path:
    """``parent/name-made_by``; what another version made under the same name is removed."""
    wanted = parent / f"{name}-{made_by}"
    for old in parent.glob(f"{name}-{'?' * len(made_by)}"):
        if old != wanted:
            shutil.rmtree(old, ignore_errors=True)
    return wanted


def _write_pair(models: Models) -> None:
    """Encoder and generator in hub format, with their tokenizers."""
    import torch
    from transformers import RobertaConfig, RobertaModel, T5Config, T5ForConditionalGeneration

    from neuro_latent_trainer.backbones import resolve
    from neuro_latent_trainer.choices import EMBEDDED
    from research.synthetic import weights

    shape = SHAPES[models.shape]
    if not shape.t5:
        source = Path(resolve(EMBEDDED))
        shutil.copytree(source / "encoder", models.encoder)
        shutil.copytree(source / "generator", models.generator)
        t5: Any = T5ForConditionalGeneration.from_pretrained(source / "generator", dtype=torch.float32)
    else:
        _write_tokenizers(models)
        special = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "dropout_rate": 0.0}
        torch.manual_seed(SEED)
        RobertaModel(RobertaConfig(**_encoder_sizes(models)), add_pooling_layer=False).save_pretrained(models.encoder)
        t5 = T5ForConditionalGeneration(T5Config(**(shape.t5 | special)))
        weights.enliven(t5)
        if models.style == "copying":
            weights.wire_copying(t5)
    weights.mute_end(t5)
    t5.save_pretrained(models.generator)


def _encoder_sizes(models: Models) -> dict[str, Any]:
    """The encoder's; where T5 copies, its states are all that is used, so that the encoder may be a toy."""
    sizes = SHAPES[models.shape].encoder
    if models.style == "copying":
        return SHAPES["tiny"].encoder | {"vocab_size": sizes["vocab_size"]}
    return sizes


def _write_tokenizers(models: Models) -> None:
    """Byte-level tokenizers learned from the sample prompts, filled up to the size of T5's vocabulary."""
    from tokenizers import Tokenizer

    from research.pretrain import tokenizers

    shape = SHAPES[models.shape]
    size = shape.t5["vocab_size"]
    learned = tokenizers.generator_tokenizer(_sample_texts(), min(size, LEARNED_VOCABULARY))
    spec = json.loads(learned.to_str())
    for i in range(learned.get_vocab_size(), size):
        spec["model"]["vocab"][f"Ġw{i}"] = i
    generator = Tokenizer.from_str(json.dumps(spec))
    tokenizers.save_generator_tokenizer(generator, models.generator)
    longest = _encoder_sizes(models)["max_position_embeddings"] - 2
    tokenizers.save_encoder_tokenizer(tokenizers.encoder_tokenizer(learned), models.encoder, longest)


def _write_adapter(models: Models) -> None:
    """A random adapter; for the embedded pair, its own."""
    import torch

    from neuro_latent_trainer import adapter_folder
    from neuro_latent_trainer.adapter import AdapterConfig
    from neuro_latent_trainer.backbones import load_encoder, load_generator, resolve
    from neuro_latent_trainer.choices import EMBEDDED
    from neuro_latent_trainer.model import PromptOptimizer

    shape = SHAPES[models.shape]
    if not shape.t5:
        shutil.copytree(Path(resolve(EMBEDDED)) / "adapter", models.adapter)
        return
    torch.manual_seed(SEED)
    reader, writer = load_encoder(str(models.encoder)), load_generator(str(models.generator))
    config = AdapterConfig.from_dict(
        {
            "encoder_width": reader.width,
            "generator_width": writer.width,
            "black_box_width": shape.black_box_width,
            "soft_prompt_tokens": 20,
            "bottleneck_width": min(128, shape.black_box_width),
        }
    )
    model = PromptOptimizer.create(reader, writer, config)
    names = (adapter_folder.BackboneName(str(models.encoder)), adapter_folder.BackboneName(str(models.generator)))
    adapter_folder.write(models.adapter, model.adapter, *names, {}, "a random adapter for benchmarks\n")


def _write_numbered(models: Models) -> None:
    """The same T5 with tokens called ``0``, ``1``, …: baselines that want tokens get ids, and ids come back."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    config = json.loads((models.generator / "config.json").read_text())
    models.numbered.mkdir()
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        os.link(models.generator / name, models.numbered / name)

    def tokenizer(names: dict[int, str]) -> Tokenizer:
        vocabulary = {names.get(i, str(i)): i for i in range(config["vocab_size"])}
        made = Tokenizer(WordLevel(vocabulary, unk_token=names.get(2, "2")))
        made.pre_tokenizer = WhitespaceSplit()
        return made

    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer({0: "<pad>", 1: "</s>", 2: "<unk>"}).save(str(models.numbered / "tokenizer.json"))
    # By hand: the transformers here writes a class that the baselines' older one does not know.
    (models.numbered / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **names}), encoding="utf-8"
    )
    tokenizer({}).save(str(models.numbers))


def summary(shape: str) -> str:
    """What the weights of a shape are, for the settings of a result."""
    return f"{'random' if SHAPES[shape].t5 else 'trained'}, </s> muted"


def made(
    shape: ShapeName,
    precision: Annotated[str, typer.Option(help="Of the export: fp32, int8 or int4.")] = "int4",
    copying: Annotated[bool, typer.Option("--copying", help="Random weights that copy their prompt.")] = False,
) -> None:
    """Make the models of a shape, export them, and print the folder of the repository."""
    with session():
        models = prepare(shape, "copying" if copying else "lively", progress)
        typer.echo(repository(models, precision, progress))


if __name__ == "__main__":
    typer.run(made)
