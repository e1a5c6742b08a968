"""Pictures of a run and of its latent space, as SVG.

Shape letters: ``N`` rows, ``E`` encoder width, ``P`` soft prompts, ``D`` generator width.
"""

import base64
import io
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from neuro_latent_trainer import checkpoint
from neuro_latent_trainer.evaluation import latent
from neuro_latent_trainer.evaluation.systems import embeddings
from neuro_latent_trainer.model import PromptOptimizer

POINTS = 300
"""The most rows in a picture of the latent space."""
COLOURS = {"raw": "#8a8a8a", "optimized": "#1f6feb", "teacher": "#d29922"}


Picture = dict[str, str]
"""``title``, ``note`` on what it shows, and ``data``: the SVG in base64."""


def loss_curves(rows: Sequence[dict[str, Any]]) -> Picture:
    """Every loss of a run over its steps, and the validation loss; ``rows`` are those of its ``metrics.jsonl``."""
    train = [row for row in rows if row["kind"] == "train"]
    validation = [row for row in rows if row["kind"] == "validation"]
    names = [n for n in ("generation", "distillation", "contrastive", "kl") if any(n in row for row in train)]
    figure = Figure(figsize=(2.9 * max(1, len(names)), 2.8), layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(1, max(1, len(names)))), names, strict=False):
        points = [(row["step"], row[name]) for row in train if name in row]
        steps, values = np.array([p[0] for p in points]), np.array([p[1] for p in points])
        axes.plot(steps, values, color="#1f6feb33", linewidth=0.8)
        width = max(1, len(values) // 40)
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        axes.plot(steps[width - 1 :], smooth, color="#1f6feb", label="training")
        held_out = {"generation": "loss", "distillation": "distillation"}.get(name)
        if held_out and validation:
            axes.plot([r["step"] for r in validation], [r[held_out] for r in validation], "o-", ms=3, color="#d29922")
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
    return _picture("Losses over the steps", "Unweighted; blue: training, ochre: held-out rows.", figure)


@torch.no_grad()
def latent_space(model: PromptOptimizer, raw: Sequence[str], enhanced: Sequence[str], run: Path | None) -> Picture:
    """Raw prompts, optimized intents and the teacher (the enhanced prompts' embeddings) on the teacher's first two
    principal axes; with a run, also before phase 2."""
    raw_NE, enhanced_NE = (embeddings(model, texts[:POINTS]) for texts in (raw, enhanced))
    states = [("now", model.adapter)]
    if run is not None and (before := _end_of_phase_1(run)) is not None:
        earlier = deepcopy(model.adapter)
        earlier.load_tensors(checkpoint.load(before)["adapter"])
        states = [("after phase 1", earlier), ("after phase 2", model.adapter)]
    teacher_NE = model.adapter.standardizer(enhanced_NE)
    centre_E = teacher_NE.mean(0)
    axes_ED = torch.linalg.svd((teacher_NE - centre_E).double(), full_matrices=False).Vh[:2].T.to(teacher_NE)
    figure = Figure(figsize=(4.2 * len(states), 4.0), layout="constrained")
    for axes, (name, adapter) in zip(np.atleast_1d(figure.subplots(1, len(states))), states, strict=True):
        clouds = {
            "raw": adapter.standardizer(raw_NE),
            "teacher": teacher_NE,
            "optimized": adapter.intent(raw_NE),
        }
        for kind, cloud_NE in clouds.items():
            _scatter(axes, (cloud_NE - centre_E) @ axes_ED, kind)
        axes.set_title(name, fontsize=10)
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=8, markerscale=2)
    return _picture(
        "The latent space",
        "On the first two principal axes of the teacher (the embeddings of the reference texts). An intent is a guess "
        "of a mean, so its cloud is smaller than the teacher's.",
        figure,
    )


@torch.no_grad()
def soft_prompt_norms(model: PromptOptimizer, raw: Sequence[str]) -> Picture:
    """Norms of the soft prompts by slot, beside those of T5's own embeddings, and their singular values."""
    raw_NE = embeddings(model, raw[:POINTS])
    soft_NPD = model.adapter(raw_NE)
    table = model.generator.embeddings.weight.norm(dim=-1).cpu().numpy()
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    norms, spectrum = figure.subplots(1, 2)
    low, middle, high = np.quantile(table, [0.05, 0.5, 0.95])
    norms.axhspan(low, high, color="#d2992222")
    norms.axhline(middle, color="#d29922", linewidth=1, label="T5's tokens, 5 to 95 %")
    by_slot = soft_NPD.norm(dim=-1).cpu().numpy()
    norms.errorbar(
        range(1, by_slot.shape[1] + 1), by_slot.mean(0), by_slot.std(0), fmt="o", ms=3, color="#1f6feb", label="soft"
    )
    norms.set_xlabel("slot", fontsize=8)
    norms.set_title("norm: mean and spread over rows", fontsize=9)
    norms.legend(fontsize=7)
    values = torch.linalg.svdvals((soft_NPD.flatten(1) - soft_NPD.flatten(1).mean(0)).double()).cpu().numpy()
    spectrum.semilogy(range(1, len(values) + 1), np.maximum(values, 1e-9), color="#1f6feb")
    spectrum.set_title(f"singular values over rows: effective rank {latent.effective_rank(soft_NPD):.1f}", fontsize=9)
    for axes in (norms, spectrum):
        axes.tick_params(labelsize=7)
    return _picture("Soft prompts", "Left: their norms; right: how many directions rows differ in.", figure)


def _scatter(axes: Axes, points_N2: Tensor, kind: str) -> None:
    x, y = points_N2.cpu().numpy().T
    axes.scatter(x, y, s=7, alpha=0.6, linewidths=0, color=COLOURS[kind], label=kind)


def _end_of_phase_1(run: Path) -> Path | None:
    """The last checkpoint of phase 1; None where the run has no phase 2."""
    ends = {
        phase: sorted(run.glob(f"phase{phase}_epoch_*.pt"), key=lambda p: int(p.stem.rsplit("_", 1)[1]))
        for phase in (1, 2)
    }
    return ends[1][-1] if ends[1] and ends[2] else None


def _picture(title: str, note: str, figure: Figure) -> Picture:
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return {"title": title, "note": note, "data": base64.b64encode(file.getvalue()).decode()}
