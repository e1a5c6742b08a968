"""``neuro-latent pretrain``: make the backbones of ``models/neuro-latent-mini``."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from neuro_latent_trainer.backbones import pool
from neuro_latent_trainer.losses import IGNORE
from neuro_latent_trainer.pretrain import models, tasks, tokenizer, tokens
from neuro_latent_trainer.pretrain.loop import Batch, LoopConfig, pretrain
from neuro_latent_trainer.pretrain.publish import publish_backbones
from neuro_latent_trainer.pretrain.select import select_pairs

app = typer.Typer(
    no_args_is_help=True,
    help="Pre-train the small backbones of models/neuro-latent-mini: prepare, generator, encoder, publish, select.",
)
HELD_OUT_BATCHES = 20
REQUEST_TEMPERATURE = 0.05

CorpusOption = Annotated[Path, typer.Option(help="JSON lines (.jsonl or .jsonl.xz) with text and kind.", exists=True)]
PairsOption = Annotated[
    Path | None, typer.Option(help="Prompt pairs whose enhanced_prompt texts are added as documents.", exists=True)
]
WorkOption = Annotated[Path, typer.Option(help="Working folder: tokenizers, token ids, checkpoints, curves.")]
MinutesOption = Annotated[float, typer.Option(help="Training time; the learning rate falls to its end.")]
SeedOption = Annotated[int, typer.Option(help="Seed of the weights and of the data.")]


def pick_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where the processor multiplies it natively, else float32."""
    native = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=native)


@app.command()
def prepare(corpus: CorpusOption, work: WorkOption, pairs: PairsOption = None) -> None:
    """Learn the tokenizers and write the corpus as token ids."""
    work.mkdir(parents=True, exist_ok=True)
    sample = (text[:4000] for text, _ in itertools.islice(tokens.read_documents(corpus, pairs), 0, None, 3))
    generator = tokenizer.generator_tokenizer(sample, models.VOCABULARY)
    generator.save(str(work / "generator_tokenizer.json"))
    tokenizer.encoder_tokenizer(generator).save(str(work / "encoder_tokenizer.json"))
    tokens.write_token_store(tokens.read_documents(corpus, pairs), generator, work / "tokens")
    store = tokens.open_token_store(work / "tokens")
    typer.echo(f"{len(store.kinds):,} documents, {len(store.ids):,} tokens")


def _samplers(work: Path) -> tuple[Tokenizer, tasks.Sampler, tasks.Sampler]:
    """The generator tokenizer, and samplers of training and held-out documents."""
    generator = Tokenizer.from_file(str(work / "generator_tokenizer.json"))
    store = tokens.open_token_store(work / "tokens")
    counts = np.bincount(store.ids, minlength=generator.get_vocab_size())
    vocabulary = tasks.Vocabulary(generator, counts)
    train, held_out = store.split()
    mixture = tasks.Mixture()
    return (
        generator,
        tasks.Sampler(store, train, mixture, vocabulary),
        tasks.Sampler(store, held_out, mixture, vocabulary),
    )


@app.command()
def generator(work: WorkOption, minutes: MinutesOption = 60.0, seed: SeedOption = 0) -> None:
    """Pre-train the small T5: span corruption, continuation, expansion."""
    config = LoopConfig(minutes=minutes, seed=seed)
    device = pick_device()
    torch.manual_seed(seed)
    text_tokenizer, train, held_out = _samplers(work)
    model: Any = models.small_generator(text_tokenizer.get_vocab_size())
    models.wire_copying(model)
    model.to(device)

    def loss(batch: Batch) -> Tensor:
        with autocast(device):
            logits = model(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                decoder_input_ids=model._shift_right(batch["labels"]),
                use_cache=False,
            ).logits
        kept = batch["labels"] != IGNORE
        return F.cross_entropy(logits[kept].float(), batch["labels"][kept])

    def batches(stream_seed: int) -> Iterator[dict[str, np.ndarray]]:
        return tasks.generator_batches(tasks.GeneratorTasks(train), config.batch_size, stream_seed)

    evaluation = tasks.generator_batches(tasks.GeneratorTasks(held_out), config.batch_size, seed=1)
    fixed = list(itertools.islice(evaluation, HELD_OUT_BATCHES))
    summary = pretrain(model, loss, batches, fixed, config, work / "generator", device)
    typer.echo(json.dumps(summary))


@app.command()
def encoder(work: WorkOption, minutes: MinutesOption = 15.0, seed: SeedOption = 0) -> None:
    """Pre-train the small RoBERTa: masked language modelling, and short requests that must find their texts."""
    config = LoopConfig(minutes=minutes, seed=seed, batch_size=64, learning_rate=1.5e-3, embedding_rate=1.5e-3)
    device = pick_device()
    torch.manual_seed(seed)
    text_tokenizer, train, held_out = _samplers(work)
    encoder_tokenizer = Tokenizer.from_file(str(work / "encoder_tokenizer.json"))
    encoder_vocabulary = encoder_tokenizer.get_vocab()
    special = {name: encoder_vocabulary[name] for name in tokenizer.ENCODER_SPECIALS}
    to_encoder = np.full(text_tokenizer.get_vocab_size(), special["<unk>"])
    for piece, i in text_tokenizer.get_vocab().items():
        to_encoder[i] = encoder_vocabulary.get(piece, special["<unk>"])
    model: Any = models.small_encoder(encoder_tokenizer.get_vocab_size())
    model.to(device)

    def loss(batch: Batch) -> Tensor:
        with autocast(device):
            hidden = model.roberta(batch["input_ids"], batch["attention_mask"]).last_hidden_state
            kept = batch["labels"] != IGNORE
            logits = model.lm_head(hidden[kept])
            asked = model.roberta(batch["request_ids"], batch["request_mask"]).last_hidden_state
        texts = F.normalize(pool(hidden.float(), batch["attention_mask"], "mean"), dim=-1)
        requests = F.normalize(pool(asked.float(), batch["request_mask"], "mean"), dim=-1)
        found = requests @ texts.T / REQUEST_TEMPERATURE
        own = torch.arange(len(found), device=device)
        return (
            F.cross_entropy(logits.float(), batch["labels"][kept])
            + (F.cross_entropy(found, own) + F.cross_entropy(found.T, own)) / 2
        )

    def batches(stream_seed: int) -> Iterator[dict[str, np.ndarray]]:
        return tasks.encoder_batches(train, to_encoder, special, config.batch_size, stream_seed)

    evaluation = tasks.encoder_batches(held_out, to_encoder, special, config.batch_size, seed=1)
    fixed = list(itertools.islice(evaluation, HELD_OUT_BATCHES))
    summary = pretrain(model, loss, batches, fixed, config, work / "encoder", device)
    typer.echo(json.dumps(summary))


@app.command()
def select(
    pairs: Annotated[Path, typer.Option(help="Prompt pairs, JSON lines.", exists=True)],
    output: Annotated[Path, typer.Option(help="JSON lines to write, for `neuro-latent train`.")],
    seed: SeedOption = 0,
) -> None:
    """Choose the prompt pairs that the embedded adapter is trained on."""
    typer.echo(json.dumps(select_pairs(pairs, output, seed)))


@app.command()
def publish(
    work: WorkOption,
    output: Annotated[Path, typer.Option(help="Folder to write, in hub format.")] = Path("models/neuro-latent-mini"),
) -> None:
    """Write encoder/ and generator/ of the output folder from the newest checkpoints, in float16."""
    for name in publish_backbones(work, output):
        typer.echo(name)
