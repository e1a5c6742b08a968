"""``neuro-latent retrain``."""

import json
import shlex
import shutil
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from neuro_latent_trainer.command_line import (
    ColumnsOption,
    configured_by,
    explain,
    fail,
    say,
    stopping_with_a_checkpoint,
)
from neuro_latent_trainer.errors import TrainerError
from neuro_latent_trainer.retraining.retrain_config import RetrainConfig
from neuro_latent_trainer.settings import ResponderConfig

if TYPE_CHECKING:
    from neuro_latent_trainer.retraining.decision import Decision
    from neuro_latent_trainer.retraining.retrain import Start

REFUSED = 3


@configured_by(ResponderConfig, "responder", "responder_url", file=False)
@configured_by(RetrainConfig)
def retrain(
    *,
    base: Annotated[Path, typer.Option(help="Training run, or adapter folder, of what is served now.", metavar="RUN")],
    feedback: Annotated[
        str | None,
        typer.Option(
            help="Database URL, or a file that `neuro-latent feedback export` wrote.",
            metavar="URL|FILE",
            show_default="where serving keeps it",
        ),
    ] = None,
    output_dir: Annotated[Path, typer.Option(help="Folder of the new run, with its decision.", metavar="NEW")] = Path(
        "runs/retrained"
    ),
    data_path: Annotated[
        Path | None,
        typer.Option(help="Original training data.", metavar="FILE", show_default="that of the base's run"),
    ] = None,
    val_path: Annotated[
        Path | None,
        typer.Option(
            help="Held-out rows of the original data, with --data-path; without, those that the base's run held out.",
            metavar="FILE",
        ),
    ] = None,
    columns: ColumnsOption = "",
    candidate: Annotated[
        Path | None,
        typer.Option(help="Judge this adapter, trained elsewhere, instead of training one.", metavar="ADAPTER"),
    ] = None,
    tasks: Annotated[
        Path | None,
        typer.Option(
            help="Tasks that nothing was trained on (docs/responders.md): the new adapter must be better on them too, "
            "by --responder.",
            metavar="FILE",
        ),
    ] = None,
    responder: ResponderConfig,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Go on where prompts to judge by were trained on.")
    ] = False,
    settings: RetrainConfig,
    promote: Annotated[
        Path | None,
        typer.Option(help="Served repository that takes the new adapter if it is no worse.", metavar="REPO"),
    ] = None,
    url: Annotated[str, typer.Option(help="The server of --promote.")] = "grpc://127.0.0.1:8001",
    adapter_name: Annotated[
        str, typer.Option(help="Its name there; `default` answers requests that name none.", metavar="NAME")
    ] = "default",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what the same command began; its feedback stays as it was.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line last on stdout.")] = False,
) -> None:
    """Learn from what people said of answers, and promote the new adapter only if it is shown to be no worse.

    Edited answers become training pairs, thumbs successes and failures; original data is mixed in. Prompts held out of
    both are never trained on. On them new is compared with old, row by row. Every figure must lie within its margin
    with 95 % confidence and one must be better (settings: --config); then the adapter goes to the running server, where
    it is probed before it answers anybody. Prompts are never printed.

      neuro-latent retrain --base runs/first --promote repository --url grpc://127.0.0.1:8001

      neuro-latent retrain --base runs/first --feedback feedback.jsonl --output-dir runs/second

      neuro-latent retrain --base runs/first --candidate runs/other --output-dir runs/judged

      neuro-latent retrain --base runs/first --candidate runs/other --tasks tasks.jsonl --responder model.gguf

    With --tasks a language model judges as well: no figure of its answers may be worse, and one must be better. Other
    rows then count where there are enough; with --candidate feedback is taken only if --feedback names it.

    Exit codes: 0 promoted (without --promote: may be), 1 failure, 2 wrong usage, 3 refused, 130 interrupted.
    """
    console = Console(stderr=True)
    if data_path is None and (val_path is not None or columns):
        fail(console, "--val-path and --columns describe --data-path, which is missing", code=2)
    if (tasks is None) != (responder.responder is None):
        fail(console, "--tasks FILE and --responder MODEL go together", code=2)
    # Imported here so that --help does not wait for torch.
    from neuro_latent_trainer import adapter_folder
    from neuro_latent_trainer.retraining import commands
    from neuro_latent_trainer.retraining import retrain as retraining
    from neuro_latent_trainer.sources import Sources, read_sources

    promoted: commands.Promoted | None = None
    try:
        folder = adapter_folder.locate(base)
        sources = Sources.of(data_path, val_path, columns) if data_path else read_sources(folder)
        if sources is None and (tasks is None or candidate is None):
            fail(
                console,
                f"{base} does not record what it was trained on: give the original data with --data-path, so that "
                "nothing of it is forgotten",
                code=2,
            )
        chosen = "" if candidate is None else str(adapter_folder.locate(candidate).absolute())
        start = retraining.Start(
            *(str(folder.absolute()), chosen, sources, settings),
            tasks=str(tasks.absolute()) if tasks else "",
            responder=responder.responder or "",
        )
        new = Path(chosen) if chosen else output_dir / "adapter"
        there = None if promote is None else commands.served(promote, adapter_name)
        decision = retraining.known_decision(output_dir) if resume else None
        promoted_before = decision is not None and decision.promote and retraining.is_version(there, new)
        if there is not None and not promoted_before and not retraining.is_version(there, folder):
            fail(
                console,
                f"{promote} serves {there} as {adapter_name}, which is not {base}: the new adapter has to be compared "
                "with what it replaces. Give that one with --base",
            )
        retraining.begin(output_dir, start, resume)
        if decision is None:
            if sources is not None:
                sources.write(output_dir)
            decision = _decide(output_dir, start, feedback, responder, allow_overlap, device, console)
        else:
            say(console, "decided before; the figures are in decision.json")
        verdict, style = ("may be promoted", "green") if decision.promote else ("refused", "yellow")
        say(console, f"{new}: {verdict}; {decision.reason}", style)
        if promoted_before:
            say(console, f"{there} is served already")
        elif decision.promote and promote is not None:
            promoted = commands.promote(new, adapter_name, promote, url)
            undo = shlex.join(commands.rollback_command(promote, url))
            place = f"version {promoted.version} of the repository's adapters"
            say(console, f"promoted: {promoted.adapter} is now {promoted.model_version}, {place}; undo with:\n  {undo}")
    except (TrainerError, FloatingPointError, OSError) as error:
        fail(console, explain(error))
    except ValueError as error:
        fail(console, str(error), code=2)
    except KeyboardInterrupt:
        fail(console, "interrupted; go on with --resume", code=130)
    if as_json:
        summary: dict[str, Any] = {**asdict(decision), "adapter": str(new), "output_dir": str(output_dir)}
        typer.echo(json.dumps({**summary, "promoted": promoted and asdict(promoted)}))
    if not decision.promote:
        raise typer.Exit(REFUSED)


def _decide(
    output_dir: Path,
    start: "Start",
    feedback: str | None,
    responder: ResponderConfig,
    allow_overlap: bool,
    device: str,
    console: Console,
) -> "Decision":
    """Take the feedback, train where there is no candidate, and compare; the decision is in the folder then."""
    from neuro_latent_trainer import adapter_folder, overlap
    from neuro_latent_trainer.backbones import default_device, device_of
    from neuro_latent_trainer.data import key
    from neuro_latent_trainer.evaluation.responder_cli import open_judge
    from neuro_latent_trainer.evaluation.tasks import read_tasks, sample_tasks
    from neuro_latent_trainer.model import PromptOptimizer
    from neuro_latent_trainer.progress import RunLog
    from neuro_latent_trainer.retraining import retrain as retraining
    from neuro_latent_trainer.retraining.decision import Evidence, table, too_few

    asked = sample_tasks(read_tasks(Path(start.tasks)), start.config.judged_rows) if start.tasks else []
    judge = open_judge(responder) if asked else None
    if judge is not None and start.candidate and feedback is None:
        (output_dir / retraining.FEEDBACK_FILE).touch(mode=0o600)
    _take_feedback(feedback, output_dir / retraining.FEEDBACK_FILE)
    base = adapter_folder.read(Path(start.base))
    trained_as = retraining.base_settings(base)
    examples, training_mix = retraining.read_records(output_dir, start, trained_as)
    for line in (examples.describe(), training_mix.describe()):
        say(console, line)
    evidence = Evidence(training_mix.original, training_mix.feedback, asked, judge)
    known = overlap.trained_on(Path(start.candidate)) if start.candidate else frozenset[str]()
    held_out = [record.raw_prompt for record in (*evidence.original, *evidence.feedback)]
    trained = {key(record.raw_prompt) for record in training_mix.train} if not start.candidate else set[str]()
    for prompts, name, by in (
        (held_out, "the held-out rows", known),
        ([task.prompt for task in asked], "--tasks", known | trained | overlap.trained_on(Path(start.base))),
    ):
        if told := overlap.check_unseen(prompts, name, by, allow_overlap):
            say(console, told, "red")
    # Before the training, which would be for nothing.
    if refusal := too_few(evidence, start.config):
        retraining.keep_decision(output_dir, refusal)
        return refusal
    where = device_of(device) or default_device()
    old = PromptOptimizer.from_pretrained(Path(start.base), device=str(where))
    adapter = Path(start.candidate)
    if not start.candidate:
        adapter = output_dir / "adapter"
        config = retraining.settings(trained_as, Path(start.base), start.config)
        with ExitStack() as closing:
            log = closing.enter_context(RunLog(output_dir, console))
            assert start.sources is not None
            run = retraining.training_run(
                output_dir,
                training_mix,
                config,
                base.training.get("data") or Path(start.sources.data_path).name,
                log,
                where,
            )
            if run is not None:
                if run.position.step:
                    say(console, f"going on at step {run.position.step}")
                with stopping_with_a_checkpoint(run, console):
                    summary = run.execute()
                if summary.interrupted:
                    fail(console, f"stopped at step {summary.steps}; go on with --resume", code=130)
    decision = retraining.decide(output_dir, old, adapter, evidence, start.config)
    console.print(table(decision))
    return decision


def _take_feedback(feedback: str | None, target: Path) -> None:
    """Copy the feedback into the run, unless an earlier start has."""
    from neuro_latent_trainer.data import DataError
    from neuro_latent_trainer.retraining import commands

    if target.is_file():
        return
    partial = target.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    if feedback is not None and Path(feedback).is_file():
        partial.touch(mode=0o600)
        with Path(feedback).open("rb") as source, partial.open("wb") as copy:
            shutil.copyfileobj(source, copy)
    elif feedback is not None and "://" not in feedback:
        raise DataError(f"--feedback {feedback}: no such file, and no database URL (sqlite:////path/to/file)")
    else:
        commands.export_feedback(feedback, partial)
    partial.replace(target)
