"""The report of an evaluation: one HTML file that needs nothing else."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from neuro_latent_core.diff import word_diff
from neuro_latent_trainer import files
from neuro_latent_trainer.evaluation import measures, pictures, rivals, tables
from neuro_latent_trainer.evaluation.evaluate import ADAPTER, SERVED, Evaluation
from neuro_latent_trainer.evaluation.pictures import Picture
from neuro_latent_trainer.model import PromptOptimizer
from neuro_latent_trainer.progress import METRICS_FILE

SAMPLES = 20
RULE = (
    "All rows are ordered by how much nearer to the reference the adapter's answer is than the raw prompt (chrF of "
    f"whole prompts). Shown are {SAMPLES // 4} of the best tenth, {SAMPLES // 4} of the worst tenth and "
    f"{SAMPLES // 2} of the rows between, each at equal distances in that order; none is chosen by hand. Answers as "
    "served."
)


def write_report(path: Path, model: PromptOptimizer, evaluation: Evaluation, run: Path | None) -> None:
    """Write the report of an evaluation; with the folder of the training run there are loss curves in it, and the
    latent space before phase 2."""
    titles, rows = tables.systems_rows(evaluation.figures)
    _write(
        path,
        "report.html.jinja",
        figures=evaluation.figures,
        encoder=model.encoder.name,
        generator=model.generator.name,
        titles=titles,
        rows=rows,
        adapter_rows=tables.adapter_rows(evaluation.figures),
        pictures=_pictures(model, evaluation, run),
        rule=RULE,
        groups=_samples(evaluation),
    )


def write_tasks_report(path: Path, found: dict[str, Any]) -> None:
    """Write the report of what prompts lead to: what ``neuro-latent evaluate --tasks --json`` prints, in words."""
    titles, rows = tables.responses_rows(found)
    by_kind = found.get("likelihood_gain_by_kind", {})
    _write(
        path,
        "tasks.html.jinja",
        found=found,
        served=SERVED,
        titles=titles,
        rows=rows,
        kinds=[[kind, *(tables.interval(of.get(name)) for name in (SERVED, ADAPTER))] for kind, of in by_kind.items()],
        words=[*(words for name, words in tables.RESPONSES.items() if name in found), *rivals.WORDS.items()],
    )


def _write(path: Path, template: str, **values: Any) -> None:
    loader = jinja2.PackageLoader("neuro_latent_trainer", "evaluation")
    page = jinja2.Environment(autoescape=True, trim_blocks=True, loader=loader).get_template(template).render(values)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, page.encode())


def _pictures(model: PromptOptimizer, evaluation: Evaluation, run: Path | None) -> list[Picture]:
    found = []
    if run is not None and (run / METRICS_FILE).is_file():
        lines = (run / METRICS_FILE).read_text(encoding="utf-8").splitlines()
        found.append(pictures.loss_curves([json.loads(line) for line in lines]))
    found.append(pictures.latent_space(model, evaluation.raw, evaluation.enhanced(evaluation.gold), run))
    found.append(pictures.soft_prompt_norms(model, evaluation.raw))
    return found


def _samples(evaluation: Evaluation) -> list[tuple[str, list[dict[str, Any]]]]:
    """Good, middling and bad prompts by RULE: word diff of raw and enhanced, and the chrF of both to the reference."""
    texts, gold = (evaluation.enhanced(found) for found in (evaluation.texts[SERVED], evaluation.gold))
    scores, raw_scores = measures.chrf(texts, gold), measures.chrf(evaluation.raw, gold)
    order = np.argsort(raw_scores - scores, kind="stable")
    tenth = max(1, len(order) // 10)
    groups = (
        ("Best tenth", order[:tenth], SAMPLES // 4),
        ("Between", order[tenth:-tenth], SAMPLES // 2),
        ("Worst tenth", order[-tenth:], SAMPLES // 4),
    )
    return [
        (
            name,
            [
                {
                    "diff": list(word_diff(evaluation.raw[row], texts[row])),
                    "gold": gold[row],
                    "score": scores[row],
                    "raw_score": raw_scores[row],
                }
                for row in _spread(rows.tolist(), most)
            ],
        )
        for name, rows, most in groups
    ]


def _spread(rows: Sequence[int], most: int) -> list[int]:
    """At most ``most`` of the rows, at equal distances."""
    if len(rows) <= most:
        return list(rows)
    return [rows[i] for i in np.linspace(0, len(rows) - 1, most).round().astype(int)]
