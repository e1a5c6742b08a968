"""``python -m neuro_latent_trainer.pretrain``: make the backbones of ``models/neuro-latent-mini``."""

import itertools
import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from neuro_latent_trainer.pretrain import models, tasks, tokenizer, tokens
from neuro_latent_trainer.pretrain.loop import Batch, LoopConfig, pretrain

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
HELD_OUT_BATCHES = 20

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
    model = models.small_generator(text_tokenizer.get_vocab_size()).to(device)

    def loss(batch: Batch) -> Tensor:
        with autocast(device):
            logits = model(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                decoder_input_ids=model._shift_right(batch["labels"]),
                use_cache=False,
            ).logits
        kept = batch["labels"] != tasks.IGNORE
        return F.cross_entropy(logits[kept].float(), batch["labels"][kept])

    def batches(stream_seed: int):
        return tasks.generator_batches(tasks.GeneratorTasks(train), config.batch_size, stream_seed)

    evaluation = tasks.generator_batches(tasks.GeneratorTasks(held_out), config.batch_size, seed=1)
    fixed = list(itertools.islice(evaluation, HELD_OUT_BATCHES))
    summary = pretrain(model, loss, batches, fixed, config, work / "generator", device)
    typer.echo(json.dumps(summary))


@app.command()
def encoder(work: WorkOption, minutes: MinutesOption = 15.0, seed: SeedOption = 0) -> None:
    """Pre-train the small RoBERTa: masked language modelling."""
    config = LoopConfig(minutes=minutes, seed=seed, batch_size=64)
    device = pick_device()
    torch.manual_seed(seed)
    text_tokenizer, train, held_out = _samplers(work)
    encoder_tokenizer = Tokenizer.from_file(str(work / "encoder_tokenizer.json"))
    special = {name: encoder_tokenizer.token_to_id(name) for name in tokenizer.ENCODER_SPECIALS}
    unknown = special["<unk>"]
    to_encoder = np.array(
        [
            encoder_tokenizer.token_to_id(text_tokenizer.id_to_token(i)) or unknown
            for i in range(text_tokenizer.get_vocab_size())
        ]
    )
    model = models.small_encoder(encoder_tokenizer.get_vocab_size()).to(device)

    def loss(batch: Batch) -> Tensor:
        with autocast(device):
            hidden = model.roberta(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            ).last_hidden_state
            kept = batch["labels"] != tasks.IGNORE
            logits = model.lm_head(hidden[kept])
        return F.cross_entropy(logits.float(), batch["labels"][kept])

    def batches(stream_seed: int):
        return tasks.masked_lm_batches(train, to_encoder, special, config.batch_size, stream_seed)

    evaluation = tasks.masked_lm_batches(held_out, to_encoder, special, config.batch_size, seed=1)
    fixed = list(itertools.islice(evaluation, HELD_OUT_BATCHES))
    summary = pretrain(model, loss, batches, fixed, config, work / "encoder", device)
    typer.echo(json.dumps(summary))


if __name__ == "__main__":
    app()
