"""``neuro-latent score``, and what ``neuro-latent evaluate --tasks`` prints."""

import hashlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from neuro_latent_trainer.command_line import (
    AnswerTokensOption,
    CacheOption,
    ConcurrencyOption,
    JudgeOption,
    PriceOption,
    ResponderOption,
    ResponderUrlOption,
    fail,
    read_data,
    say,
    tracked,
)
from neuro_latent_trainer.errors import TrainerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neuro_latent_trainer.data import Record
    from neuro_latent_trainer.evaluation.responses import Judge
    from neuro_latent_trainer.model import PromptOptimizer
    from neuro_latent_trainer.responders import Responder
    from neuro_latent_trainer.settings import EvaluationConfig

TITLES = {
    "added": "prompts changed",
    "likelihood_gain": "likelihood gain",
    "margin_gain": "margin gain",
    "good_above_bad": "good above bad",
    "constraints_met": "checks met",
    "constraints_gain": "checks gain",
    "wins_gain": "wins less losses",
    "wins_gain_at_like_length": "the same, like lengths",
    "orders_agree": "orders agree",
}
LEGEND = (
    "likelihood gain: how much likelier the good answer gets, nats a token, with the system's prompt in place of the "
    "raw one; margin: the same of good less bad answers. Intervals: 95 %, bootstrap over prompts."
)


def open_judge(
    responder: str | None,
    url: str | None,
    judge: str | None,
    concurrency: int,
    cache: Path | None,
    answer_tokens: int,
) -> "Judge":
    """What asks the responder that the options name.

    Raises:
        ResponderError: it cannot be opened.
    """
    from neuro_latent_trainer.evaluation.responses import Judge
    from neuro_latent_trainer.responders import ResponderError, default_cache, open_responder

    if responder is None:
        raise ResponderError("--responder MODEL is missing: which language model is to answer?")

    def opened(model: str) -> "Responder":
        return open_responder(model, url, concurrency, cache or default_cache())

    return Judge(opened(responder), answer_tokens, opened(judge) if judge else None)


def responses(
    asker: "Judge",
    model: "PromptOptimizer",
    tasks: Path,
    train: "Sequence[Record]",
    config: "EvaluationConfig",
) -> dict[str, Any]:
    """What the prompts of all systems lead to: figures by name and system, and a verdict for each system.

    Raises:
        TrainerError: the tasks cannot be read, or the responder does not answer.
    """
    from neuro_latent_trainer.evaluation.responses import verdict
    from neuro_latent_trainer.evaluation.rivals import enhanced_by_system
    from neuro_latent_trainer.evaluation.tasks import read_tasks

    asked = read_tasks(tasks)
    if len(asked) > config.rows:
        asked = sorted(asked, key=lambda task: hashlib.sha256(task.prompt.encode()).digest())[: config.rows]
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
    used = [name for name in TITLES if name in found]
    table = Table("system", *(TITLES[name] for name in used), caption=LEGEND)
    for system in found["added"]:
        table.add_row(system, *(_cell(found[name].get(system)) for name in used))
    console.print(table)
    say(console, spent(usage, price))


def _cell(found: list[float] | None) -> str:
    return "" if found is None else "{:.3f}\n{:.3f} to {:.3f}".format(*found)


def score(
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
    responder: ResponderOption = None,
    responder_url: ResponderUrlOption = None,
    judge: JudgeOption = None,
    concurrency: ConcurrencyOption = 8,
    answer_tokens: AnswerTokensOption = 256,
    price: PriceOption = None,
    responder_cache: CacheOption = None,
    samples: Annotated[int, typer.Option(min=1, max=64, help="Texts that the adapter draws for a prompt.")] = 4,
    temperature: Annotated[float, typer.Option(min=0.01, max=5, help="Of the draws.")] = 0.9,
    margin: Annotated[
        float, typer.Option(min=0, help="Least gain of a candidate that is taken; least loss of one that failed.")
    ] = 0.01,
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
        config = scoring.ScoringConfig(samples=samples, temperature=temperature, margin=margin)
        sources: list[scoring.Source] = []
        if candidates is not None:
            sources.append(scoring.given(read_data(console, candidates, "").records, "given"))
        if adapter is not None:
            model = PromptOptimizer.from_pretrained(adapter_folder.locate(adapter))
            sources.append(scoring.adapter_samples(model, config))
            if train is not None:
                sources.append(scoring.nearest_text(model, read_data(console, train, "").records))
        asker = open_judge(responder, responder_url, judge, concurrency, responder_cache, answer_tokens)
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
    say(console, spent(asker.usage, price))


def spent(usage: Any, price: tuple[float, float] | None) -> str:
    """What asking has cost, in words."""
    cost = usage.cost(price)
    return (
        f"asked {usage.asked} times ({usage.cached} more were known): {usage.prompt_tokens:,} tokens read, "
        f"{usage.answer_tokens:,} written" + ("" if cost is None else f", cost {cost:.4f}")
    )
