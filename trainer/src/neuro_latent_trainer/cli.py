"""``neuro-latent train``."""

import json
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from neuro_latent_trainer.command_line import (
    ColumnsOption,
    DataOption,
    EmbeddingsOption,
    explain,
    fail,
    read_data,
    say,
    stopping_with_a_checkpoint,
)
from neuro_latent_trainer.config import TrainConfig
from neuro_latent_trainer.errors import TrainerError

if TYPE_CHECKING:
    from neuro_latent_core.form import Form
    from neuro_latent_trainer.data import Dataset

DEFAULTS = TrainConfig()


def train(
    context: typer.Context,
    data_path: DataOption,
    output_dir: Annotated[
        Path, typer.Option(help="Folder of the run: checkpoints, adapter, curves.", metavar="RUN")
    ] = Path("runs/latest"),
    create_sample: Annotated[
        bool, typer.Option("--create-sample", help="Write a sample data set to --data-path and stop.")
    ] = False,
    val_path: Annotated[
        Path | None,
        typer.Option(help="Validation data; without it a share of --data-path is held out.", metavar="FILE"),
    ] = None,
    columns: ColumnsOption = "",
    strict: Annotated[bool, typer.Option(help="Stop at a bad row instead of reporting it and going on.")] = False,
    encoder: Annotated[str, typer.Option(help="Frozen encoder: Hub name or local folder.")] = DEFAULTS.encoder,
    generator: Annotated[str, typer.Option(help="Frozen T5: Hub name or local folder.")] = DEFAULTS.generator,
    form: Annotated[
        str,
        typer.Option(
            help="What T5 learns to write: complement (text behind the raw prompt, which stays as it is), rewrite (a "
            "whole new prompt), or auto: complement where the data has a column of them or nine in ten enhanced "
            "prompts begin with their raw prompt. With --start-from, auto is the form of that adapter."
        ),
    ] = DEFAULTS.form,
    phase1_epochs: Annotated[int, typer.Option(help="Epochs of distillation.")] = DEFAULTS.phase1_epochs,
    phase2_epochs: Annotated[int, typer.Option(help="Epochs of contrastive training.")] = DEFAULTS.phase2_epochs,
    batch_size: Annotated[int, typer.Option(help="Records a step, over all processes.")] = DEFAULTS.batch_size,
    micro_batch_size: Annotated[
        int, typer.Option(help="The most records that T5 sees at once: less memory, the same step; 0 is all.")
    ] = DEFAULTS.micro_batch_size,
    learning_rate: Annotated[float, typer.Option(help="AdamW's peak rate.")] = DEFAULTS.learning_rate,
    base_learning_rate: Annotated[
        float,
        typer.Option(help="The rate of what all soft prompts have in common, in spreads of T5's embeddings a step."),
    ] = DEFAULTS.base_learning_rate,
    kl_weight: Annotated[float, typer.Option(help="Weight of the KL penalty on soft prompts.")] = DEFAULTS.kl_weight,
    projector: Annotated[str, typer.Option(help="residual or dense.")] = DEFAULTS.projector,
    soft_prompt_tokens: Annotated[int, typer.Option(help="Number of soft prompts.")] = DEFAULTS.soft_prompt_tokens,
    pooling: Annotated[str, typer.Option(help="mean or cls.")] = DEFAULTS.pooling,
    input_mask: Annotated[
        float, typer.Option(help="Share of the prompt's tokens hidden from T5 in training.")
    ] = DEFAULTS.input_mask,
    max_source_tokens: Annotated[
        int, typer.Option(help="Longest raw prompt in training.")
    ] = DEFAULTS.max_source_tokens,
    max_target_tokens: Annotated[int, typer.Option(help="Longest target in training.")] = DEFAULTS.max_target_tokens,
    validation_share: Annotated[
        float, typer.Option(help="Share held out without --val-path.")
    ] = DEFAULTS.validation_share,
    sample_every: Annotated[int, typer.Option(help="Steps between sample texts; 0 is never.")] = DEFAULTS.sample_every,
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints within an epoch.")] = DEFAULTS.save_every,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and masks.")] = DEFAULTS.seed,
    precision: Annotated[
        str, typer.Option(help="Of T5's products: auto (bf16 on a GPU, else fp32), fp32 or bf16.")
    ] = DEFAULTS.precision,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    gate_share: Annotated[
        float,
        typer.Option(
            help="Share of the kinds of request (or clusters) kept out of training, for the gate of the complement "
            "form to be fitted on; 0 fits none, and everything is served."
        ),
    ] = DEFAULTS.gate_share,
    start_from: Annotated[
        str,
        typer.Option(
            help="Adapter to go on training from, with other data or settings: folder, run or Hub name.",
            metavar="ADAPTER",
        ),
    ] = DEFAULTS.start_from,
    steered: Annotated[
        bool,
        typer.Option(help="Start from the adapter that the generator was pre-trained with, where it has one."),
    ] = DEFAULTS.steered,
    linear_start: Annotated[
        bool, typer.Option(help="Start the black box as the best linear guess of the enhanced prompt's embedding.")
    ] = DEFAULTS.linear_start,
    embeddings_dir: EmbeddingsOption = None,
    resume: Annotated[
        str | None, typer.Option(help="Go on from a checkpoint file, or from the newest in RUN with 'last'.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line last on stdout.")] = False,
) -> None:
    """Train an adapter in two phases: distillation, then contrastive.

    The run folder gets phase1_epoch_N.pt, phase2_epoch_N.pt and neuro_final_model.pt (each can be resumed from),
    adapter/ (what export and serve take; there after the first epoch), metrics.jsonl, samples.jsonl, tensorboard/.

    Ctrl-C ends the current step, writes a checkpoint and stops; --resume last goes on with the same losses.

    First steps:

      neuro-latent train --create-sample --data-path sample.jsonl

      neuro-latent train --data-path sample.jsonl --output-dir runs/first

      neuro-latent serve --run runs/first

    Several GPUs, or several machines: accelerate launch .venv/bin/neuro-latent train ...; the steps are the same as
    those of one process.
    """
    console = Console(stderr=True)
    if create_sample:
        _create_sample(data_path, console, as_json)
        return
    try:
        settings = TrainConfig.__dataclass_fields__.keys() & context.params.keys()
        config = TrainConfig(**{name: context.params[name] for name in settings})
    except ValueError as error:
        fail(console, str(error), code=2)
    _train(config, data_path, val_path, columns, strict, output_dir, embeddings_dir, resume, device, console, as_json)


def _create_sample(path: Path, console: Console, as_json: bool) -> None:
    from neuro_latent_trainer.sample import write_sample

    try:
        count = write_sample(path)
    except (OSError, ValueError) as error:
        fail(console, str(error))
    say(console, f"{count} sample records written to {path}. Train on them with:")
    say(console, f"  neuro-latent train --data-path {path} --output-dir runs/first")
    if as_json:
        typer.echo(json.dumps({"data_path": str(path), "records": count}))


def _train(
    config: TrainConfig,
    data_path: Path,
    val_path: Path | None,
    columns: str,
    strict: bool,
    output_dir: Path,
    embeddings_dir: Path | None,
    resume: str | None,
    device: str,
    console: Console,
    as_json: bool,
) -> None:
    # Imported here so that --help and --create-sample do not wait for torch.
    from neuro_latent_trainer import checkpoint
    from neuro_latent_trainer.data import describe_unused, parse_columns, split_records
    from neuro_latent_trainer.progress import RunLog, Unobserved
    from neuro_latent_trainer.sources import Sources
    from neuro_latent_trainer.training import Observer, Run

    try:
        processes = _processes(device)
    except ValueError as error:
        fail(console, str(error), code=2)
    if not processes.is_main_process:
        console.quiet = True
    if resume is None and output_dir.is_dir() and (present := checkpoint.all_in(output_dir)):
        fail(
            console,
            f"{output_dir} already holds a run ({present[-1].name}): go on with --resume last, "
            "or choose another --output-dir",
        )
    try:
        mapping = parse_columns(columns) if columns else None

        def warn(text: str) -> None:
            say(console, f"warning: {text}", "yellow")

        def read(path: Path) -> "Dataset":
            report = output_dir / f"bad_rows_{path.name}.txt" if processes.is_main_process else None
            return read_data(console, path, mapping, strict=strict, report=report)

        data = read(data_path)
        if val_path is None:
            train_records, val_records = split_records(data.records, config.validation_share, config.seed)
        else:
            train_records, val_records = list(data.records), list(read(val_path).records)
        say(console, f"{len(train_records)} training records, {len(val_records)} held out")
        form, reason = _form(config, data)
        config = replace(config, form=form)
        say(console, f"form: {form} ({reason})")
        if unused := describe_unused(train_records + val_records, form):
            say(console, unused, "yellow")
        checkpoint_path = checkpoint.newest(output_dir, warn) if resume == "last" else resume and Path(resume)
        with ExitStack() as closing:
            observer: Observer = Unobserved()
            if processes.is_main_process:
                observer = closing.enter_context(RunLog(output_dir, console))
            run = Run(
                config,
                train_records,
                val_records,
                output_dir,
                observer,
                processes.device,
                data_path.name,
                embeddings_dir,
            )
            if checkpoint_path:
                run.restore(checkpoint_path)
                say(console, f"resumed from {checkpoint_path} at step {run.position.step}")
            if processes.is_main_process:
                Sources.of(data_path, val_path, columns).write(output_dir)
            before = run.sample() if config.sample_every else []
            with stopping_with_a_checkpoint(run, console):
                summary = run.execute()
            after = run.sample() if before and not summary.interrupted else []
    except (TrainerError, FloatingPointError, ValueError, OSError) as error:
        fail(console, explain(error), code=2 if isinstance(error, ValueError) else 1)
    if summary.interrupted:
        fail(console, f"stopped at step {summary.steps}; go on with --resume last", code=130)
    for (raw, first), (_, last) in zip(before[:1], after, strict=False):
        start = "before" if not checkpoint_path else "when resumed"
        for name, text in (("held-out prompt", raw), (f"written {start}", first), ("written now", last)):
            say(console, f"{name}: {text or '(nothing)'}")
    losses = f"{summary.validation_loss_start:.4f} → {summary.validation_loss_end:.4f} nats a token"
    say(console, f"validation loss {losses}, {summary.steps} steps in {summary.seconds:.0f} s. Serve it with:")
    say(console, f"  neuro-latent serve --run {output_dir}")
    if as_json and processes.is_main_process:
        typer.echo(json.dumps(asdict(summary)))


def _form(config: TrainConfig, data: "Dataset") -> "tuple[Form, str]":
    """The form to train, and why.

    Raises:
        AdapterError: it is that of an adapter to start from, which cannot be read.
    """
    from neuro_latent_trainer import adapter_folder

    if config.form != "auto":
        return config.form, "as --form says"
    if config.start_from:
        return adapter_folder.read(adapter_folder.fetch(config.start_from)).config.form, f"as {config.start_from} has"
    if data.has_complements:
        return "complement", "the data has a column of complements"
    return data.form, f"{data.complement_share:.0%} of the enhanced prompts begin with their raw prompt"


def _processes(name: str) -> Any:
    """accelerate's view of this run's processes, with this process's device.

    Raises:
        ValueError: ``name`` is no device, or there is none such here.
    """
    import torch
    from accelerate import PartialState

    try:
        device = None if name == "auto" else torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device is not None:
        if device.type not in ("cpu", "cuda"):
            raise ValueError(f"--device must be auto, cpu, cuda or cuda:N, not {name!r}")
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise ValueError(f"--device is {name!r}, but PyTorch finds {torch.cuda.device_count()} GPUs here")
    processes = PartialState(cpu=device is not None and device.type == "cpu")
    if device is not None and device.index is not None:
        processes.device = device
    return processes
