"""``neuro-latent evaluate``."""

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from neuro_latent_trainer.command_line import configured_by, fail, read_data, say
from neuro_latent_trainer.errors import TrainerError
from neuro_latent_trainer.evaluation import responder_cli, tables
from neuro_latent_trainer.settings import EvaluationConfig, ResponderConfig

PREFERENCE_COLUMNS = "raw=raw_prompt,enhanced=success,failed=failed"


@configured_by(ResponderConfig, *ResponderConfig.model_fields)
@configured_by(EvaluationConfig, "rows", "max_length", "max_target_tokens")
def evaluate(
    *,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Raw prompts with enhanced ones, none of which the adapter was trained on.",
            metavar="FILE",
            show_default="what a training run held out",
        ),
    ] = None,
    adapter: Annotated[Path | None, typer.Option(help="Adapter folder, or a training run.", metavar="DIR")] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Two adapters instead of one: each figure of both, with a paired test.", metavar="A B"),
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(
            help="What the adapter was trained on: adds the nearest training prompt, prompt tuning and full "
            "fine-tuning as baselines.",
            metavar="FILE",
        ),
    ] = None,
    preferences: Annotated[
        Path | None,
        typer.Option(help="Prompts with a version that succeeded and one that failed.", metavar="FILE"),
    ] = None,
    columns: Annotated[
        str,
        typer.Option(
            help="Names of the columns of --data and --train, as raw=NAME,enhanced=NAME,complement=NAME.", metavar="MAP"
        ),
    ] = "",
    preference_columns: Annotated[
        str, typer.Option(help="Names of the columns of --preferences.", metavar="MAP")
    ] = PREFERENCE_COLUMNS,
    encoder: Annotated[str | None, typer.Option(help="Frozen encoder, if not the one that the adapter names.")] = None,
    generator: Annotated[str | None, typer.Option(help="Frozen T5, if not the one that the adapter names.")] = None,
    config: EvaluationConfig,
    trained_baselines: Annotated[
        bool,
        typer.Option("--baselines/--no-baselines", help="Train prompt tuning and full fine-tuning (with --train)."),
    ] = True,
    baselines_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where trained baselines are kept and found again.", metavar="DIR", show_default="DIR/baselines"
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="HTML report to write of one adapter.",
            metavar="FILE",
            show_default="in a training run report.html, with --tasks tasks.html",
        ),
    ] = None,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Go on where an adapter was trained on some of the prompts.")
    ] = False,
    tasks: Annotated[
        Path | None,
        typer.Option(
            help="In place of --data: JSON lines with prompt, and where there are any good and bad answers or IFEval "
            "checks; a language model is asked what the prompts lead to.",
            metavar="FILE",
        ),
    ] = None,
    responder: ResponderConfig,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all figures as one JSON line, last on stdout.")
    ] = False,
) -> None:
    """Measure an adapter beside baselines on the same rows, with 95 % bootstrap intervals over rows.

    Systems: the raw prompt unchanged; the frozen T5 with an instruction in words; the adapter, also as it is served:
    behind gate and guard, where the raw prompt stands for what is withheld. With --train: the complement or the
    rewrite of the nearest training prompt; PEFT's prompt tuning and the whole T5 fine-tuned, both trained here for as
    many steps of as many rows as the adapter was. For an adapter of the complement form also the training data's most
    typical complement for every prompt, and what the adapter wrote for another row.

    Figures: cross-entropy of the gold text in nats a token (for "raw": of the frozen T5 with the raw prompt alone);
    share of the full fine-tune's gain over the instruction; chrF and ROUGE-L to the gold text; served: the share of
    prompts that get anything but the raw prompt; unchanged and unneeded: where that is wrong; rejected by the guard;
    withheld by gate or guard; usage gap: how much worse the loss is with another row's soft prompts; effective rank of
    the soft prompts; retrieval of the own gold prompt (mean reciprocal rank) by intent and by raw embedding; with
    --preferences, how often the text that succeeded is found likelier. In the complement form a text is the complement
    alone, without the raw prompt before it.

      neuro-latent evaluate --adapter runs/first

      neuro-latent evaluate --adapter runs/first --data new.jsonl --train runs/first/train.jsonl

      neuro-latent evaluate --compare runs/first runs/second --data val.jsonl

    With --tasks a language model judges what the prompts lead to: how much likelier a good answer gets, how often it is
    likelier than a bad one, how many checks an answer meets, or which of two answers is better. Systems: the raw
    prompt, the adapter as served and with gate and guard off, its additions to other prompts, one constant sentence,
    an equally long text that asks for nothing, and with --train the nearest training prompt's text.

      neuro-latent evaluate --adapter runs/first --tasks tasks.jsonl --responder SmolLM2-135M-Instruct.Q4_1.gguf

    Exit codes: 0 done, 1 failure, 2 wrong usage.
    """
    console = Console(stderr=True)
    if (adapter is None) == (compare is None):
        fail(console, "give one adapter with --adapter DIR, or two with --compare A B", code=2)
    if data is not None and tasks is not None:
        fail(console, "give rows with --data FILE, or tasks for a responder with --tasks FILE, not both", code=2)
    if tasks is not None and (compare or preferences or baselines_dir):
        fail(console, "--tasks takes one --adapter, and no --preferences or --baselines-dir", code=2)
    if compare is not None and (report or train or baselines_dir):
        fail(
            console,
            "--compare writes no report and trains no baselines: leave out --report, --train and --baselines-dir",
            code=2,
        )
    # Imported here so that --help does not wait for torch.
    from neuro_latent_trainer import adapter_folder, overlap
    from neuro_latent_trainer.data import Record, describe_unused, key
    from neuro_latent_trainer.evaluation.baselines import Baselines, Budget
    from neuro_latent_trainer.evaluation.evaluate import evaluate as evaluate_adapter
    from neuro_latent_trainer.evaluation.evaluate import is_triple
    from neuro_latent_trainer.evaluation.paired import compare as compare_adapters
    from neuro_latent_trainer.evaluation.report import write_report, write_tasks_report
    from neuro_latent_trainer.evaluation.tasks import read_tasks
    from neuro_latent_trainer.model import PromptOptimizer
    from neuro_latent_trainer.progress import METRICS_FILE
    from neuro_latent_trainer.sources import read_sources

    def records(path: Path | None, names: str) -> list[Record]:
        return list(read_data(console, path, names).records) if path else []

    def load(path: Path) -> PromptOptimizer:
        return PromptOptimizer.from_pretrained(adapter_folder.locate(path), encoder=encoder, generator=generator)

    def seen(prompts: Sequence[str], file: Path) -> bool:
        """Whether some of the prompts were trained on, which is said."""
        known = {key(record.raw_prompt) for record in trained_on}.union(*(overlap.trained_on(one) for one in folders))
        told = overlap.check_unseen(prompts, file.name, known, allow_overlap)
        if told:
            say(console, told, "red")
        return bool(told)

    named: dict[str, Any]
    try:
        folders = [adapter_folder.locate(path) for path in compare or (adapter,) if path is not None]
        folder = folders[0]
        run = folder.parent if (folder.parent / METRICS_FILE).is_file() else None
        trained_on = records(train, columns)
        if tasks is not None:
            asked = read_tasks(tasks)
            overlaps = seen([task.prompt for task in asked], tasks)
            asker = responder_cli.open_judge(responder)
            judged = responder_cli.responses(asker, load(folder), asked, trained_on, config)
            named = {
                **{"adapter": str(folder), "adapter_version": adapter_folder.version(folder)},
                **{"data": tasks.name, "date": date.today().isoformat(), "overlap": overlaps},
            }
            responder_cli.show(console, judged, asker.usage, responder.price)
            if target := report or (run and run / "tasks.html"):
                write_tasks_report(target, {**named, **judged})
                say(console, f"report: {target}")
            if as_json:
                typer.echo(json.dumps({**named, **judged}))
            return
        if data is None and (kept := read_sources(folder)) is not None and kept.val_path:
            data = Path(kept.val_path)
            say(console, f"rows: {data}")
        if data is None:
            fail(console, "give rows with --data FILE, or tasks for a responder with --tasks FILE", code=2)
        on = records(data, columns)
        overlaps = seen([record.raw_prompt for record in on], data)
        pairs = records(preferences, preference_columns)
        preferred = [record for record in pairs if is_triple(record)]
        if len(preferred) < len(pairs):
            say(console, f"{len(pairs) - len(preferred)} rows of {preferences} lack a version and do not count")
        models = [load(path) for path in folders]
        if unused := describe_unused(on, models[0].adapter.config.form):
            say(console, f"{data}: {unused}")
        if compare is not None:
            figures = compare_adapters(models[0], models[1], on, preferences=preferred, config=config)
            named = {"adapters": [str(path) for path in compare]}
        else:
            model, baselines = models[0], None
            if trained_on and trained_baselines:
                places = baselines_dir or folder.parent / "baselines"
                baselines = Baselines(places, model.generator, trained_on, Budget.of(model))
            found = evaluate_adapter(
                model, on, train=trained_on, preferences=preferred, baselines=baselines, config=config
            )
            figures, named = found.figures, {"adapter": str(folder)}
            if report is not None or run is not None:
                target = report or folder.parent / "report.html"
                write_report(target, model, found, run)
                say(console, f"report: {target}")
    except (TrainerError, OSError, ValueError) as error:
        fail(console, str(error))
    for table in tables.of_two(figures) if compare is not None else tables.of_one(figures):
        console.print(table)
    if as_json:
        typer.echo(json.dumps({**named, "data": data.name, "overlap": overlaps, **figures}))
