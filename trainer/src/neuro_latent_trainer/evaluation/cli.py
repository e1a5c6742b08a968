"""``neuro-latent evaluate``."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

DEFAULT_ROWS = 2000
PREFERENCE_COLUMNS = "raw=raw_prompt,enhanced=success,failed=failed"


def evaluate(
    data: Annotated[
        Path,
        typer.Option(help="Raw prompts with enhanced ones, none of which the adapter was trained on.", metavar="FILE"),
    ],
    adapter: Annotated[Path, typer.Option(help="Adapter folder, or a training run.", metavar="DIR")],
    train: Annotated[
        Path | None,
        typer.Option(
            help="What the adapter was trained on: adds the nearest training prompt as a baseline.", metavar="FILE"
        ),
    ] = None,
    preferences: Annotated[
        Path | None,
        typer.Option(help="Prompts with a version that succeeded and one that failed.", metavar="FILE"),
    ] = None,
    columns: Annotated[
        str, typer.Option(help="Names of the columns of --data and --train, as raw=NAME,enhanced=NAME.", metavar="MAP")
    ] = "",
    preference_columns: Annotated[
        str, typer.Option(help="Names of the columns of --preferences.", metavar="MAP")
    ] = PREFERENCE_COLUMNS,
    encoder: Annotated[str | None, typer.Option(help="Frozen encoder, if not the one that the adapter names.")] = None,
    generator: Annotated[str | None, typer.Option(help="Frozen T5, if not the one that the adapter names.")] = None,
    rows: Annotated[int, typer.Option(min=2, help="The most rows of --data, chosen by a hash.")] = DEFAULT_ROWS,
    max_length: Annotated[int, typer.Option(min=1, max=512, help="The most tokens that a system writes.")] = 96,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all figures as one JSON line, last on stdout.")
    ] = False,
) -> None:
    """Measure an adapter beside baselines on the same rows, with 95 % bootstrap intervals over rows.

    Systems: the raw prompt unchanged; the frozen T5 with an instruction in words; the enhanced prompt of the nearest
    training prompt (with --train); the adapter, also behind the guard, as it is served.

    Figures: cross-entropy of the gold text in nats a token; chrF to it; copied: the share of texts that are the raw
    prompt again; literals kept; degenerate texts; usage gap: how much worse the loss is with another row's soft
    prompts; effective rank of the soft prompts; retrieval of the own gold text (mean reciprocal rank) by intent and by
    raw embedding; with --preferences, how often the text that succeeded is found likelier.

      neuro-latent evaluate --adapter runs/first --data val.jsonl --train train.jsonl

    Exit codes: 0 done, 1 failure, 2 wrong usage.
    """
    console = Console(stderr=True)
    # Imported here so that --help does not wait for torch.
    from rich.progress import Progress

    from neuro_latent_trainer import adapter_folder
    from neuro_latent_trainer.adapter_folder import AdapterError
    from neuro_latent_trainer.backbones import BackboneError
    from neuro_latent_trainer.data import DataError, parse_columns, read_records, render_bad_rows
    from neuro_latent_trainer.evaluation import compare
    from neuro_latent_trainer.model import PromptOptimizer

    def records(path: Path | None, names: str) -> list[Any]:
        if path is None:
            return []
        found = read_records(path, parse_columns(names) if names else None)
        if found.bad_rows:
            console.print(render_bad_rows(found.bad_rows), highlight=False, markup=False)
        return list(found.records)

    try:
        config = compare.EvaluationConfig(rows=rows, max_length=max_length)
        on, trained_on = records(data, columns), records(train, columns)
        pairs = records(preferences, preference_columns)
        preferred = [record for record in pairs if compare.is_triple(record)]
        if len(preferred) < len(pairs):
            console.print(f"{len(pairs) - len(preferred)} rows of {preferences} lack a version and do not count")
        folder = adapter_folder.locate(adapter)
        model = PromptOptimizer.from_pretrained(folder, encoder=encoder, generator=generator)
        with Progress(console=console, transient=True) as bars:

            def stage(name: str, total: int) -> Callable[[int], None]:
                task = bars.add_task(name, total=total)
                return lambda done: bars.advance(task, done)

            found = compare.evaluate(model, on, train=trained_on, preferences=preferred, config=config, stage=stage)
    except (AdapterError, BackboneError, DataError, OSError, ValueError) as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False)
        raise typer.Exit(1) from None
    _show(console, found.figures)
    if as_json:
        typer.echo(json.dumps({"adapter": str(folder), "data": data.name, **found.figures}))


def _show(console: Console, figures: dict[str, Any]) -> None:
    """Two tables: what differs by system, and what only the adapter has."""
    columns = {
        "ce": ("cross-entropy", 1.0, 3),
        "chrf": ("chrF", 1.0, 1),
        "copied": ("copied", 100.0, 1),
        "literals_kept": ("literals kept", 100.0, 1),
        "degenerate": ("degenerate", 100.0, 1),
        "preference_accuracy": ("prefers success", 100.0, 1),
    }
    used = {name: column for name, column in columns.items() if name in figures}
    table = Table("system", title=f"{figures['rows']} rows; value (95 % interval); shares in %")
    for title, _, _ in used.values():
        table.add_column(title, justify="right")
    for system in figures["chrf"]:
        table.add_row(
            system,
            *(_cell(figures[name].get(system), scale, digits) for name, (_, scale, digits) in used.items()),
        )
    console.print(table)
    ours = Table("of the adapter", "")
    for name, title in (
        ("ce_gain", "cross-entropy below the instruction's"),
        ("usage_gap", "usage gap: loss with another row's soft prompts less the own"),
        ("usage_gap_to_mean", "the same with the mean soft prompts"),
        ("effective_rank", "effective rank of the soft prompts"),
        ("intent_r2", "R² of the intent over the mean"),
        ("retrieval", "mean reciprocal rank of the own gold text, by the intent"),
    ):
        value = figures[name].get("adapter", figures[name])
        ours.add_row(title, _cell(value, 1.0, 3))
    ours.add_row("the same by the raw embedding", _cell(figures["retrieval"]["raw"], 1.0, 3))
    console.print(ours)


def _cell(figure: dict[str, float] | float | None, scale: float, digits: int) -> str:
    if figure is None:
        return "–"
    if isinstance(figure, dict):
        value, low, high = (figure[name] * scale for name in ("value", "low", "high"))
        return f"{value:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"
    return f"{figure * scale:.{digits}f}"
