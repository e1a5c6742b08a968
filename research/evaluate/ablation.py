"""Ablation of the training recipe, one change at a time: ``python -m research.evaluate.ablation --help``."""

import json
import statistics as numbers
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from neuro_latent_trainer.command_line import ColumnsOption, DataOption, fail, read_data
from neuro_latent_trainer.settings import EvaluationConfig, LossWeights, TrainConfig

if TYPE_CHECKING:
    from neuro_latent_trainer.data import Record

DEFAULT = "default"


def _without(config: TrainConfig, loss: str) -> TrainConfig:
    """A loss switched off in both phases."""
    return config.replace(phase1={loss: 0.0}, phase2={loss: 0.0})


VARIANTS: dict[str, Callable[[TrainConfig], TrainConfig]] = {
    DEFAULT: lambda c: c,
    "unsteered start": lambda c: c.replace(steered=False),
    "random start": lambda c: c.replace(linear_start=False),
    "dense projector": lambda c: c.replace(projector="dense"),
    "no cross-entropy": lambda c: _without(c, "generation"),
    "no distillation": lambda c: _without(c, "distillation"),
    "no InfoNCE": lambda c: _without(c, "contrastive"),
    "cross-entropy alone": lambda c: c.replace(phase1=LossWeights(), phase2=LossWeights(), kl_weight=0.0),
    "KL 0": lambda c: c.replace(kl_weight=0.0),
    "KL 0.001": lambda c: c.replace(kl_weight=0.001),
    "KL 0.1": lambda c: c.replace(kl_weight=0.1),
    "input mask 0": lambda c: c.replace(input_mask=0.0),
    "input mask 0.3": lambda c: c.replace(input_mask=0.3),
    "5 soft prompts": lambda c: c.replace(soft_prompt_tokens=5),
    "10 soft prompts": lambda c: c.replace(soft_prompt_tokens=10),
    "40 soft prompts": lambda c: c.replace(soft_prompt_tokens=40),
    "base at the rate of the rest": lambda c: c.replace(base_learning_rate=1e-3),
    "base learning rate 0.03": lambda c: c.replace(base_learning_rate=0.03),
    "base learning rate 0.3": lambda c: c.replace(base_learning_rate=0.3),
    "learning rate 3e-4": lambda c: c.replace(learning_rate=3e-4),
    "learning rate 3e-3": lambda c: c.replace(learning_rate=3e-3),
}
"""By name: what is changed in the settings."""


def ablate(
    data_path: DataOption,
    val_path: Annotated[Path, typer.Option(help="Held-out rows to measure on.", metavar="FILE", exists=True)],
    output_dir: Annotated[Path, typer.Option(help="Folder of the runs and of results.jsonl.", metavar="DIR")],
    preferences: Annotated[
        Path | None, typer.Option(help="Prompts with a version that succeeded and one that failed.", metavar="FILE")
    ] = None,
    columns: ColumnsOption = "",
    only: Annotated[
        list[str] | None, typer.Option(help=f"Variants to run, of: {', '.join(VARIANTS)}; by default all.")
    ] = None,
    records: Annotated[int, typer.Option(min=8, help="Training records of each run, chosen by a hash.")] = 2000,
    rows: Annotated[int, typer.Option(min=2, help="The most held-out rows, chosen by a hash.")] = 500,
    phase1_epochs: Annotated[int, typer.Option(min=0, help="Epochs of distillation.")] = 3,
    phase2_epochs: Annotated[int, typer.Option(min=0, help="Epochs of contrastive training.")] = 2,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each variant, with seeds 0, 1, ...")] = 1,
    default_seeds: Annotated[int, typer.Option(min=1, help="Runs of the default, whose spread tells chance.")] = 3,
    precision: Annotated[str, typer.Option(help="As in `neuro-latent train`.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print all results as one JSON line last.")] = False,
) -> None:
    """Train the default recipe and variants of it, each with one choice changed, and compare them on held-out rows.

    Runs that results.jsonl already holds are not repeated, so that an interrupted ablation goes on where it stopped.
    """
    console = Console(stderr=True)
    unknown = sorted(set(only or ()) - set(VARIANTS))
    if unknown:
        fail(console, f"no variant {unknown[0]!r}; there are: {', '.join(VARIANTS)}", code=2)
    from neuro_latent_trainer.data import sample_records
    from neuro_latent_trainer.evaluation.cli import PREFERENCE_COLUMNS
    from neuro_latent_trainer.evaluation.evaluate import is_triple

    data = read_data(console, data_path, columns)
    train = sample_records(data.records, records)
    held_out = list(read_data(console, val_path, columns).records)
    pairs = read_data(console, preferences, PREFERENCE_COLUMNS).records if preferences else []
    triples = [record for record in pairs if is_triple(record)]
    output_dir.mkdir(parents=True, exist_ok=True)
    log = output_dir / "results.jsonl"
    known = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.is_file() else []
    console.print(f"form: {data.form}", highlight=False)
    base = TrainConfig(
        form=data.form,
        phase1_epochs=phase1_epochs,
        phase2_epochs=phase2_epochs,
        sample_every=0,
        precision=precision,  # type: ignore[arg-type]  # checked by TrainConfig
    )
    for name in only or VARIANTS:
        for seed in range(default_seeds if name == DEFAULT else seeds):
            config = VARIANTS[name](base).replace(seed=seed)
            if any(result["variant"] == name and result["seed"] == seed for result in known):
                continue
            console.print(f"{name}, seed {seed}", highlight=False)
            figures = _measure(config, train, held_out, triples, output_dir, f"{name} {seed}".replace(" ", "_"), rows)
            known.append({"variant": name, "seed": seed, **figures})
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(known[-1]) + "\n")
    console.print(_table(known))
    if as_json:
        typer.echo(json.dumps(known))


def _measure(
    config: TrainConfig,
    train: "list[Record]",
    held_out: "list[Record]",
    preferences: "list[Record]",
    folder: Path,
    name: str,
    rows: int,
) -> dict[str, Any]:
    """Train once; the adapter's figures."""
    from neuro_latent_trainer.backbones import default_device
    from neuro_latent_trainer.evaluation.evaluate import ADAPTER, chosen, score
    from neuro_latent_trainer.training import Observer, Run

    validation = chosen(held_out, config.resolved_form, rows)
    run = Run(
        config, train, validation, folder / name, Observer(), default_device(), embeddings_dir=folder / "embeddings"
    )
    summary = run.execute()
    found = score(run.model.eval(), validation, preferences, EvaluationConfig(rows=rows))
    figures = {key: found[key][ADAPTER] for key in found}
    return {"seconds": round(summary.seconds, 1), "steps": summary.steps, **figures}


COLUMNS = {
    "ce": ("cross-entropy", 3),
    "usage_gap": ("usage gap", 3),
    "effective_rank": ("effective rank", 1),
    "retrieval": ("retrieval", 3),
    "preference_by_intent": ("success nearer", 3),
}


def _table(results: list[dict[str, Any]]) -> Table:
    """One row a variant: means over its seeds, and their spread."""
    table = Table(title="means over seeds ± standard deviation")
    for title in ("variant", "seeds", *(title for title, _ in COLUMNS.values())):
        table.add_column(title, justify="left" if title == "variant" else "right")
    for name in dict.fromkeys(result["variant"] for result in results):
        rows = [result for result in results if result["variant"] == name]
        table.add_row(name, str(len(rows)), *(_cell(rows, key, digits) for key, (_, digits) in COLUMNS.items()))
    return table


def _cell(rows: list[dict[str, Any]], key: str, digits: int) -> str:
    found = [row[key] for row in rows if key in row]
    values = [value["value"] if isinstance(value, dict) else value for value in found]
    if not values:
        return "–"
    spread = f" ± {numbers.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{numbers.mean(values):.{digits}f}{spread}"


if __name__ == "__main__":
    typer.run(ablate)
