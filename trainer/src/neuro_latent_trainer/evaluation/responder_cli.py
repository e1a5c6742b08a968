"""``neuro-latent score``, and what ``neuro-latent evaluate --tasks`` prints."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from neuro_latent_trainer.command_line import configured_by, fail, read_data, say, tracked
from neuro_latent_trainer.errors import TrainerError
from neuro_latent_trainer.evaluation import tables
from neuro_latent_trainer.settings import EvaluationConfig, ResponderConfig, ScoringConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neuro_latent_trainer.data import Record
    from neuro_latent_trainer.evaluation.responses import Judge
    from neuro_latent_trainer.evaluation.tasks import Task
    from neuro_latent_trainer.model import PromptOptimizer


def open_judge(config: ResponderConfig) -> "Judge":
    """What asks the responder that the options name.

    Raises:
        ResponderError: it cannot be opened.
    """
    from neuro_latent_trainer.evaluation.responses import Judge
    from neuro_latent_trainer.responders import ResponderError, default_cache, open_responder

    if config.responder is None:
        raise ResponderError("--responder MODEL is missing: which language model is to answer?")
    cache = config.responder_cache or default_cache()
    responder, judge = (
        open_responder(model, config.responder_url, config.concurrency, cache) if model else None
        for model in (config.responder, config.judge)
    )
    assert responder is not None
    return Judge(responder, config.answer_tokens, judge)


def responses(
    asker: "Judge",
    model: "PromptOptimizer",
    tasks: "Sequence[Task]",
    train: "Sequence[Record]",
    config: EvaluationConfig,
) -> dict[str, Any]:
    """What the prompts of all systems lead to: figures by name and system, and a verdict for each system; of at most
    as many tasks as the settings say, chosen by a hash.

    Raises:
        TrainerError: the responder does not answer.
    """
    from neuro_latent_trainer.evaluation.responses import verdict
    from neuro_latent_trainer.evaluation.rivals import enhanced_by_system
    from neuro_latent_trainer.evaluation.tasks import sample_tasks

    asked = sample_tasks(tasks, config.rows)
    systems = enhanced_by_system(model, [task.prompt for task in asked], train, config)
    figures = asker.figures(asked, systems)
    return {
        "tasks": len(asked),
        "responder": asker.identity,
        "verdict": {system: verdict(figures, system) for system in systems},
        **figures,
    }


def show(console: Console, found: dict[str, Any], usage: Any, price: tuple[float, float] | None) -> None:
    """Print the verdict on what is served, the table, and what asking has cost."""
    from neuro_latent_trainer.evaluation.evaluate import SERVED

    say(console, f"{SERVED}, by {found['responder']} on {found['tasks']} tasks: {found['verdict'][SERVED]}")
    titles, rows = tables.responses_rows(found, "\n")
    table = Table(*titles, caption=tables.RESPONSES["likelihood_gain"][1] + " Intervals: 95 %, bootstrap over prompts.")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    say(console, spent(usage, price))


@configured_by(ResponderConfig, *ResponderConfig.model_fields)
@configured_by(ScoringConfig, *ScoringConfig.model_fields)
def score(
    *,
    prompts: Annotated[
        Path,
        typer.Option(
            help="JSON lines: prompt, and where there are any good and bad answers or IFEval checks.", metavar="FILE"
        ),
    ],
    output: Annotated[Path, typer.Option(help="Records for `neuro-latent train`; one that is there goes on.")],
    adapter: Annotated[Path | None, typer.Option(help="Adapter, or run, that draws candidates.", metavar="DIR")] = None,
    candidates: Annotated[
        Path | None, typer.Option(help="Enhanced prompts somebody wrote, as training data have them.", metavar="FILE")
    ] = None,
    train: Annotated[
        Path | None, typer.Option(help="Training data: the nearest prompt's text is a candidate.", metavar="FILE")
    ] = None,
    responder: ResponderConfig,
    config: ScoringConfig,
) -> None:
    """Make training data of raw prompts: a language model says which candidates lead to better answers.

    For each prompt: the adapter's greedy text and draws, the nearest training prompt's text, those of --candidates, and
    nothing at all. The candidate whose prompt makes the good answer likeliest (or meets the most checks, or wins the
    comparison of answers) becomes the enhanced prompt; those that lose become failed prompts, for phase 2. Where none
    is better than the raw prompt by the margin, the record says that nothing is to be added.

      neuro-latent score --prompts tasks.jsonl --adapter runs/first --responder model.gguf --output scored.jsonl

      neuro-latent train --data-path scored.jsonl --output-dir runs/second

    Exit codes: 0 done, 1 failure, 2 wrong usage.
    """
    console = Console(stderr=True)
    if adapter is None and candidates is None:
        fail(console, "nothing makes candidates: give --adapter DIR, --candidates FILE, or both", code=2)
    if train is not None and adapter is None:
        fail(console, "--train needs --adapter, whose encoder says which prompt is nearest", code=2)
    from neuro_latent_trainer import adapter_folder
    from neuro_latent_trainer.evaluation import scoring
    from neuro_latent_trainer.evaluation.tasks import read_tasks
    from neuro_latent_trainer.model import PromptOptimizer

    try:
        done = scoring.already(output)
        tasks = [task for task in read_tasks(prompts) if task.prompt not in done]
        if done:
            say(console, f"{output}: {len(done)} prompts are scored already, {len(tasks)} are left")
        sources: list[scoring.Source] = []
        if candidates is not None:
            sources.append(scoring.given(read_data(console, candidates, "").records, "given"))
        if adapter is not None:
            model = PromptOptimizer.from_pretrained(adapter_folder.locate(adapter))
            sources.append(scoring.adapter_samples(model, config))
            if train is not None:
                sources.append(scoring.nearest_text(model, read_data(console, train, "").records))
        asker = open_judge(responder)
        started, better = time.monotonic(), 0
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("a", encoding="utf-8") as file:
            for record in tracked(scoring.records(asker, tasks, sources, config), "scoring", len(tasks)):
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                file.flush()
                better += record["enhanced_prompt"] != record["raw_prompt"]
    except (TrainerError, OSError, ValueError) as error:
        fail(console, str(error))
    seconds = time.monotonic() - started
    say(console, f"{output}: {len(tasks)} prompts in {seconds:.0f} s, {better} with a text that is better than nothing")
    say(console, spent(asker.usage, responder.price))


def spent(usage: Any, price: tuple[float, float] | None) -> str:
    """What asking has cost, in words."""
    cost = usage.cost(price)
    return (
        f"asked {usage.asked} times ({usage.cached} more were known): {usage.prompt_tokens:,} tokens read, "
        f"{usage.answer_tokens:,} written" + ("" if cost is None else f", cost {cost:.4f}")
    )
