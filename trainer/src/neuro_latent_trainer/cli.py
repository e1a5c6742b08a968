"""``neuro-latent train``."""

import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from neuro_latent_trainer.command_line import (
    ColumnsOption,
    DataOption,
    EmbeddingsOption,
    configured_by,
    explain,
    fail,
    read_data,
    say,
    stopping_with_a_checkpoint,
)
from neuro_latent_trainer.errors import TrainerError
from neuro_latent_trainer.settings import CONFIG_FILE, TrainConfig

if TYPE_CHECKING:
    from neuro_latent_core.form import Form
    from neuro_latent_trainer.data import Dataset

SHOWN = (
    *("encoder", "generator", "form", "phase1_epochs", "phase2_epochs"),
    *("batch_size", "learning_rate", "start_from", "seed"),
)
"""Settings that ``--help`` shows as options."""


@configured_by(TrainConfig, *SHOWN)
def train(
    *,
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
    config: TrainConfig,
    strict: Annotated[bool, typer.Option(help="Stop at a bad row instead of reporting it and going on.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    embeddings_dir: EmbeddingsOption = None,
    resume: Annotated[
        str | None, typer.Option(help="Go on from a checkpoint file, or from the newest in RUN with 'last'.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line last on stdout.")] = False,
) -> None:
    """Train an adapter in two phases: distillation, then contrastive.

    The run folder gets phase1_epoch_N.pt, phase2_epoch_N.pt and neuro_final_model.pt (each can be resumed from),
    adapter/ (what export and serve take; there after the first epoch), config.toml (its settings, for --config),
    train.jsonl and val.jsonl (what was trained on and held out, for evaluate), metrics.jsonl, samples.jsonl,
    tensorboard/.

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
    # Imported here so that --help and --create-sample do not wait for torch.
    from accelerate import PartialState

    from neuro_latent_trainer import checkpoint, files
    from neuro_latent_trainer.backbones import device_of
    from neuro_latent_trainer.data import describe_unused, split_records
    from neuro_latent_trainer.overlap import ENOUGH_HELD_OUT, describe_repeats
    from neuro_latent_trainer.progress import RunLog
    from neuro_latent_trainer.sources import write_split
    from neuro_latent_trainer.training import Observer, Run

    try:
        chosen = device_of(device)
        processes = PartialState(cpu=device == "cpu")
        if chosen is not None and chosen.index is not None:
            processes.device = chosen
        is_main: bool = processes.is_main_process
        console.quiet = not is_main
        if resume is None and output_dir.is_dir() and (present := checkpoint.all_in(output_dir)):
            fail(
                console,
                f"{output_dir} already holds a run ({present[-1].name}): go on with --resume last, "
                "or choose another --output-dir",
            )

        def read(path: Path) -> "Dataset":
            report = output_dir / f"bad_rows_{path.name}.txt" if is_main else None
            return read_data(console, path, columns, strict=strict, report=report)

        data = read(data_path)
        if val_path is None:
            train_records, val_records = split_records(data.records, config.validation_share, config.seed)
        else:
            train_records, val_records = list(data.records), list(read(val_path).records)
        say(console, f"{len(train_records)} training records, {len(val_records)} held out")
        if len(val_records) < ENOUGH_HELD_OUT:
            few = f"fewer than {ENOUGH_HELD_OUT} held-out records tell little: more data, --val-path FILE, or --set"
            say(console, f"{few} validation_share=0.2", "yellow")
        form, reason = _form(config, data)
        config = config.replace(form=form)
        say(console, f"form: {form} ({reason})")
        if unused := describe_unused(train_records + val_records, form):
            say(console, unused, "yellow")
        for line in describe_repeats(train_records, val_records, form):
            say(console, line, "yellow")
        start = Path(resume) if resume else None
        if resume == "last":
            start = checkpoint.newest(output_dir, lambda text: say(console, f"warning: {text}", "yellow"))
        with ExitStack() as closing:
            observer = closing.enter_context(RunLog(output_dir, console)) if is_main else Observer()
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
            if start:
                run.restore(start)
                say(console, f"resumed from {start} at step {run.position.step}")
            if is_main:
                write_split(output_dir, train_records, val_records)
                files.write(output_dir / CONFIG_FILE, config.to_toml().encode())
            before = run.sample()
            with stopping_with_a_checkpoint(run, console):
                summary = run.execute()
            after = [] if summary.interrupted else run.sample()
    except (TrainerError, FloatingPointError, ValueError, OSError) as error:
        fail(console, explain(error), code=2 if isinstance(error, ValueError) else 1)
    if summary.interrupted:
        fail(console, f"stopped at step {summary.steps}; go on with --resume last", code=130)
    for (raw, first), (_, last) in zip(before, after, strict=True):
        then = "when resumed" if start else "before"
        for name, text in (("held-out prompt", raw), (f"written {then}", first), ("written now", last)):
            say(console, f"{name}: {text or '(nothing)'}")
    losses = f"{summary.validation_loss_start:.4f} → {summary.validation_loss_end:.4f} nats a token"
    say(console, f"validation loss {losses}, {summary.steps} steps in {summary.seconds:.0f} s. Serve it with:")
    say(console, f"  neuro-latent serve --run {output_dir}")
    if as_json and is_main:
        typer.echo(json.dumps(asdict(summary)))


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
