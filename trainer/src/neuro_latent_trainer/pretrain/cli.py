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

from neuro_latent_trainer.backbones import autocast, default_device, freeze, pool
from neuro_latent_trainer.choices import Precision
from neuro_latent_trainer.losses import IGNORE
from neuro_latent_trainer.pretrain import models, tasks, tokenizer, tokens
from neuro_latent_trainer.pretrain.everyday import everyday_pairs
from neuro_latent_trainer.pretrain.loop import Batch, LoopConfig, pretrain, to_device
from neuro_latent_trainer.pretrain.overlap import HeldOut
from neuro_latent_trainer.pretrain.publish import publish_backbones
from neuro_latent_trainer.pretrain.select import select_pairs
from neuro_latent_trainer.pretrain.steering import SteeredGenerator, steering_adapter

app = typer.Typer(
    no_args_is_help=True,
    help="Pre-train the small backbones of models/neuro-latent-mini: prepare, encoder, generator, publish, select.",
)
HELD_OUT_BATCHES = 20
MOST_STEPS = LoopConfig().max_steps
STANDARDIZER_SEED = 7_000_000
"""Far from the seeds of the training stream."""
EVERYDAY_TEXTS = 30_000
"""How many rewrites of the grammar are drawn."""
STANDARDIZER_BATCHES = 128
REQUEST_TEMPERATURE = 0.05

CorpusOption = Annotated[Path, typer.Option(help="JSON lines (.jsonl or .jsonl.xz) with text and kind.", exists=True)]
PairsOption = Annotated[
    Path | None, typer.Option(help="Prompt pairs whose enhanced_prompt texts are added as documents.", exists=True)
]
HeldOutOption = Annotated[
    list[Path] | None,
    typer.Option(
        help="JSON lines that quality is measured on; a text that shares 13 words in a row with one of theirs is left "
        "out. May be given several times.",
        exists=True,
    ),
]
WorkOption = Annotated[Path, typer.Option(help="Working folder: tokenizers, token ids, checkpoints, curves.")]
MinutesOption = Annotated[float, typer.Option(help="Training time; the learning rate falls to its end.")]
StepsOption = Annotated[int, typer.Option(help="The most steps; the learning rate falls to its end by then too.")]
SeedOption = Annotated[int, typer.Option(help="Seed of the weights and of the data.")]


def pick_precision(device: torch.device) -> Precision:
    """bfloat16 where the processor multiplies it natively, else float32."""
    native = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return "bf16" if native else "fp32"


@app.command()
def prepare(
    corpus: CorpusOption,
    work: WorkOption,
    pairs: PairsOption = None,
    held_out: HeldOutOption = None,
) -> None:
    """Learn the tokenizers and write the corpus as token ids."""
    work.mkdir(parents=True, exist_ok=True)
    known, left_out = HeldOut.read(held_out or []), 0

    def documents() -> Iterator[tuple[str, int]]:
        nonlocal left_out
        requests = ((text, tokens.KINDS.index("request")) for text in tokens.read_requests(corpus, pairs))
        pairs_of_grammar = everyday_pairs(EVERYDAY_TEXTS, seed=0)
        everyday = (("\n".join(pair), tokens.KINDS.index("everyday")) for pair in pairs_of_grammar)
        for text, kind in itertools.chain(tokens.read_documents(corpus, pairs), requests, everyday):
            if known.repeated_by(text):
                left_out += 1
            else:
                yield text, kind

    sample = (text[:4000] for text, _ in itertools.islice(tokens.read_documents(corpus, pairs), 0, None, 3))
    generator = tokenizer.generator_tokenizer(sample, models.VOCABULARY)
    generator.save(str(work / "generator_tokenizer.json"))
    tokenizer.encoder_tokenizer(generator).save(str(work / "encoder_tokenizer.json"))
    tokens.write_token_store(documents(), generator, work / "tokens")
    store = tokens.open_token_store(work / "tokens")
    typer.echo(
        f"{len(store.kinds):,} documents, {len(store.ids):,} tokens; {left_out:,} documents were left out, "
        f"which repeat one of {known.texts:,} held-out texts"
    )


class _Data:
    """What ``pretrain prepare`` has written, and samplers of training and held-out documents."""

    def __init__(self, work: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(work / "generator_tokenizer.json"))
        self.encoder_tokenizer = Tokenizer.from_file(str(work / "encoder_tokenizer.json"))
        self.frame = tasks.EncoderFrame(self.tokenizer, self.encoder_tokenizer)
        store = tokens.open_token_store(work / "tokens")
        counts = np.bincount(store.ids, minlength=self.tokenizer.get_vocab_size())
        self.vocabulary = tasks.Vocabulary(self.tokenizer, counts)
        train, held_out = store.split()
        mixture = tasks.Mixture()
        self.train = tasks.Sampler(store, train, mixture, self.vocabulary)
        self.held_out = tasks.Sampler(store, held_out, mixture, self.vocabulary)


def _load_encoder(work: Path, vocabulary: int, device: torch.device) -> Any:
    """The RoBERTa of ``pretrain encoder``, frozen.

    Raises:
        typer.BadParameter: it has not been trained yet.
    """
    checkpoint = work / "encoder" / "checkpoint.pt"
    if not checkpoint.is_file():
        raise typer.BadParameter(
            f"{work} has no encoder yet, whose embeddings steer the generator; make it with: "
            f"neuro-latent pretrain encoder --work {work}",
            param_hint="--work",
        )
    model = models.small_encoder(vocabulary)
    model.load_state_dict(torch.load(checkpoint, weights_only=True, map_location="cpu")["model"])
    return freeze(model.roberta).to(device)


@app.command()
def generator(
    work: WorkOption,
    minutes: MinutesOption = 60.0,
    steps: StepsOption = MOST_STEPS,
    seed: SeedOption = 0,
) -> None:
    """Pre-train the small T5: span corruption, continuation, expansion; steered by the encoder's embeddings."""
    config = LoopConfig(minutes=minutes, max_steps=steps, seed=seed)
    device = default_device()
    torch.manual_seed(seed)
    data = _Data(work)
    encoder = _load_encoder(work, data.encoder_tokenizer.get_vocab_size(), device)
    t5: Any = models.small_generator(data.tokenizer.get_vocab_size())
    models.wire_copying(t5)
    instruction = data.vocabulary.instructions[tasks.EXPAND_PROMPT].tolist()
    model = SteeredGenerator(t5, steering_adapter(encoder.config.hidden_size, t5.config.d_model), instruction)
    model.to(device)

    @torch.no_grad()
    def embed(ids: Tensor, mask: Tensor) -> Tensor:
        with autocast(device, pick_precision(device)):
            hidden = encoder(ids, mask).last_hidden_state
        return pool(hidden.float(), mask, "mean")

    def loss(batch: Batch) -> Tensor:
        embedding = embed(batch["guide_ids"], batch["guide_mask"])
        with autocast(device, pick_precision(device)):
            logits = model(batch, embedding)
        kept = batch["labels"] != IGNORE
        return F.cross_entropy(logits[kept].float(), batch["labels"][kept])

    def batches(stream_seed: int) -> Iterator[dict[str, np.ndarray]]:
        return tasks.generator_batches(tasks.GeneratorTasks(data.train), data.frame, config.batch_size, stream_seed)

    stream = (to_device(batch, device) for batch in batches(seed + STANDARDIZER_SEED))
    steered = [
        embed(batch["guide_ids"], batch["guide_mask"])[batch["steered"] == 1]
        for batch in itertools.islice(stream, STANDARDIZER_BATCHES)
    ]
    model.standardizer.fit(torch.cat(steered))
    held_out = tasks.generator_batches(tasks.GeneratorTasks(data.held_out), data.frame, config.batch_size, seed=1)
    fixed = list(itertools.islice(held_out, HELD_OUT_BATCHES))
    summary = pretrain(model, loss, batches, fixed, config, work / "generator", device)
    typer.echo(json.dumps(summary))


@app.command()
def encoder(
    work: WorkOption, minutes: MinutesOption = 15.0, steps: StepsOption = MOST_STEPS, seed: SeedOption = 0
) -> None:
    """Pre-train the small RoBERTa: masked language modelling, and short requests that must find their texts."""
    config = LoopConfig(
        minutes=minutes, max_steps=steps, seed=seed, batch_size=64, learning_rate=1.5e-3, embedding_rate=1.5e-3
    )
    device = default_device()
    torch.manual_seed(seed)
    data = _Data(work)
    model: Any = models.small_encoder(data.encoder_tokenizer.get_vocab_size())
    model.to(device)

    def loss(batch: Batch) -> Tensor:
        with autocast(device, pick_precision(device)):
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
        return tasks.encoder_batches(data.train, data.frame, config.batch_size, stream_seed)

    held_out = tasks.encoder_batches(data.held_out, data.frame, config.batch_size, seed=1)
    fixed = list(itertools.islice(held_out, HELD_OUT_BATCHES))
    summary = pretrain(model, loss, batches, fixed, config, work / "encoder", device)
    typer.echo(json.dumps(summary))


@app.command()
def select(
    pairs: Annotated[Path, typer.Option(help="Prompt pairs, JSON lines.", exists=True)],
    output: Annotated[Path, typer.Option(help="JSON lines to write, for `neuro-latent train`.")],
    preferences: Annotated[
        Path | None, typer.Option(help="Prompts with a version that succeeded and one that failed.", exists=True)
    ] = None,
    held_out: HeldOutOption = None,
    corpus: Annotated[
        Path | None, typer.Option(help="Corpus whose requests are added, with hasty versions of them.", exists=True)
    ] = None,
    seed: SeedOption = 0,
) -> None:
    """Choose the prompt pairs that the embedded adapter is trained on."""
    typer.echo(json.dumps(select_pairs(pairs, output, preferences, held_out or (), seed, corpus)))


@app.command()
def publish(
    work: WorkOption,
    output: Annotated[Path, typer.Option(help="Folder to write, in hub format.")] = Path("models/neuro-latent-mini"),
) -> None:
    """Write encoder/ and generator/ of the output folder from the newest checkpoints, in float16."""
    for name in publish_backbones(work, output):
        typer.echo(name)
