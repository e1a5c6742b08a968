"""Training data from what prompts lead to: candidates for each raw prompt, ranked by a responder.

The best candidate becomes the enhanced prompt, those that make answers worse the failed ones: what phase 2 contrasts,
without anybody having labelled prompts.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from neuro_latent_core.guard import rejects
from neuro_latent_trainer.data import Record
from neuro_latent_trainer.errors import TrainerError
from neuro_latent_trainer.evaluation.evaluate import targets, with_target
from neuro_latent_trainer.evaluation.responses import Judge
from neuro_latent_trainer.evaluation.served import whole
from neuro_latent_trainer.evaluation.systems import adapted, nearest
from neuro_latent_trainer.evaluation.tasks import Task
from neuro_latent_trainer.model import PromptOptimizer
from neuro_latent_trainer.settings import ScoringConfig

Source = Callable[[Sequence[str]], list[list[tuple[str, str]]]]
"""Raw prompts -> for each its candidates: where one comes from, and the enhanced prompt."""


class ScoringError(TrainerError):
    """Scores cannot be made or written."""


CHUNK = 8
"""Prompts that are scored before their records are written."""
MOST_FAILED = 3


def adapter_samples(model: PromptOptimizer, config: ScoringConfig) -> Source:
    """What the adapter writes: its greedy text, and draws."""
    condition, generator, form = adapted(model), model.generator, model.adapter.config.form

    @torch.no_grad()
    def draw(prompts: Sequence[str]) -> list[list[tuple[str, str]]]:
        torch.manual_seed(config.seed)
        hidden, mask = condition(list(prompts))
        found = [generator.write_ids(hidden, mask, config.max_length)]
        if config.samples > 1:
            more = config.samples - 1
            hidden, mask = hidden.repeat_interleave(more, 0), mask.repeat_interleave(more, 0)
            options: dict[str, Any] = {"do_sample": True, "temperature": config.temperature, "top_p": 0.95, "top_k": 0}
            drawn = generator.write_ids(hidden, mask, config.max_length, **options)
            found += [drawn[first::more] for first in range(more)]
        rows = []
        for number, raw in enumerate(prompts):
            texts = dict.fromkeys(generator.decode(ids[number]).strip() for ids in found)
            good = [text for text in texts if text and not rejects(raw, text, form)]
            rows.append([("adapter", enhanced) for enhanced in whole([raw] * len(good), good, form)])
        return rows

    return draw


def nearest_text(model: PromptOptimizer, known: Sequence[Record]) -> Source:
    """The text of the most similar training prompt.

    Raises:
        ScoringError: no record says what to write in the adapter's form.
    """
    form = model.adapter.config.form
    rows = with_target(known, form)
    if not rows:
        raise ScoringError(f"--train has no text in the adapter's form, {form}")
    find = nearest(model, [record.raw_prompt for record in rows], targets(rows, form))
    return lambda prompts: [[("nearest", text)] for text in whole(prompts, find(prompts), form)]


def given(known: Sequence[Record], name: str) -> Source:
    """Enhanced and failed prompts that somebody has written."""
    texts: dict[str, list[tuple[str, str]]] = {}
    for record in known:
        both = [*([record.enhanced_prompt] if record.enhanced_prompt else []), *record.failed_prompts]
        texts.setdefault(record.raw_prompt, []).extend((name, text) for text in both)
    return lambda prompts: [texts.get(raw, []) for raw in prompts]


def records(
    judge: Judge,
    tasks: Sequence[Task],
    sources: Sequence[Source],
    config: ScoringConfig,
) -> Iterator[dict[str, Any]]:
    """A record for each task, as ``neuro-latent train`` reads it, with all candidates and their gains.

    Where no candidate is better than the raw prompt by the margin, the raw prompt stays as it is.
    """
    for at in range(0, len(tasks), CHUNK):
        some = tasks[at : at + CHUNK]
        candidates = _candidates([task.prompt for task in some], sources)
        flat = [(row, source, text) for row, found in enumerate(candidates) for text, source in found.items()]
        scored: list[list[dict[str, Any]]] = [[] for _ in some]
        if flat:
            asked = [some[row] for row, _, _ in flat]
            found = judge.gains(asked, [text for *_, text in flat])
            for (row, source, text), gain in zip(flat, found, strict=True):
                scored[row].append({"source": source, "enhanced_prompt": text, "gain": round(float(gain), 4)})
        for task, own in zip(some, scored, strict=True):
            yield _record(task, own, config.margin)


def _candidates(prompts: Sequence[str], sources: Sequence[Source]) -> list[dict[str, str]]:
    """For each prompt its candidates, each different one once: enhanced prompt -> the source that had it first."""
    rows: list[dict[str, str]] = [{} for _ in prompts]
    for source in sources:
        for row, (raw, found) in zip(rows, zip(prompts, source(prompts), strict=True), strict=True):
            for name, text in found:
                if text != raw:
                    row.setdefault(text, name)
    return rows


def _record(task: Task, scored: Sequence[Mapping[str, Any]], margin: float) -> dict[str, Any]:
    ranked = sorted(scored, key=lambda one: -one["gain"])
    best = ranked[0] if ranked and ranked[0]["gain"] > margin else None
    failed = [one["enhanced_prompt"] for one in reversed(ranked) if one["gain"] < -margin][:MOST_FAILED]
    return {
        "raw_prompt": task.prompt,
        "enhanced_prompt": best["enhanced_prompt"] if best else task.prompt,
        "failed_prompts": failed,
        "kind": task.kind,
        "gain": best["gain"] if best else 0.0,
        "candidates": ranked,
    }


def already(path: Path) -> set[str]:
    """The raw prompts that a file of records has; a last line that was cut off is removed.

    Raises:
        ScoringError: it holds something else.
    """
    if not path.is_file():
        return set()
    *lines, rest = path.read_text(encoding="utf-8").split("\n")
    found = set()
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            found.add(str(record["raw_prompt"]))
            record["candidates"]
        except (ValueError, KeyError, TypeError):
            what = f"{path}, line {number} is no record of `neuro-latent score`: name another file"
            raise ScoringError(what) from None
    if rest:
        if not lines:
            raise ScoringError(f"{path} holds no record of `neuro-latent score`: name another file")
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return found
