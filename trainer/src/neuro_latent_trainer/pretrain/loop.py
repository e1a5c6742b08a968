"""The pre-training loop: bounded by minutes or by steps, resumable, reporting throughput and held-out loss."""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuro_latent_trainer.losses import IGNORE

Batch = dict[str, Tensor]


NO_MATRICES = ("embed", "shared", "lm_head", "bias", "projector.base", "projector.scale")
"""Parts of the names of parameters that are no matrix of a layer, whatever their shape."""


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast to learn.

    The learning rate warms up over the first 2 % of the budget, stays, and falls linearly to 2 % of itself over the
    last 65 %. The budget is ``minutes`` of training time or ``max_steps``, whichever ends first.
    """

    minutes: float = 60.0
    max_steps: int = 1_000_000
    batch_size: int = 48
    learning_rate: float = 1.5e-3
    embedding_rate: float = 1.5e-2
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    seed: int = 0
    report_every: int = 50
    evaluate_every: int = 1000
    evaluate_batches: int = 20
    checkpoint_every: int = 200


def make_optimizers(model: nn.Module, config: LoopConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW at a higher rate for embeddings, biases and norms.

    Muon (Jordan et al. 2024) orthogonalises the update of a matrix; ``match_rms_adamw`` (Liu et al. 2025) gives it
    AdamW's scale. T5's embeddings start with a spread of 1, so they need a rate far above the matrices'.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2 and not any(part in name for part in NO_MATRICES)
        (matrices if is_matrix else others).append(parameter)
    return [
        torch.optim.Muon(
            matrices, lr=config.learning_rate, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=config.embedding_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def learning_rate_factor(progress: float) -> float:
    """Warm-up, plateau, linear decay; ``progress`` in [0, 1]."""
    if progress < 0.02:
        return max(0.02, progress / 0.02)
    return 1.0 if progress < 0.35 else max(0.02, (1.0 - progress) / 0.65)


def to_device(batch: dict[str, np.ndarray], device: torch.device) -> Batch:
    """Numpy arrays to tensors on ``device``."""
    return {name: torch.from_numpy(np.ascontiguousarray(array)).to(device) for name, array in batch.items()}


@torch.no_grad()
def held_out_loss(model: nn.Module, loss: Callable[[Batch], Tensor], batches: list[Batch]) -> float:
    """Mean loss over the held-out batches."""
    model.eval()
    mean = float(np.mean([loss(batch).item() for batch in batches]))
    model.train()
    return mean


def pretrain(
    model: nn.Module,
    loss: Callable[[Batch], Tensor],
    train_batches: Callable[[int], Iterator[dict[str, np.ndarray]]],
    held_out: list[dict[str, np.ndarray]],
    config: LoopConfig,
    folder: Path,
    device: torch.device,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train ``model`` in place and return a summary (steps, tokens, seconds, losses).

    ``train_batches(seed)`` makes the batch stream; after a resume it starts from another seed, so no batch is seen
    twice. ``folder/checkpoint.pt`` holds everything needed to go on after an interruption, ``folder/log.jsonl`` the
    curves.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    optimizers = make_optimizers(model, config)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    step, tokens, seconds = 0, 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location=device)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step, tokens, seconds = state["step"], state["tokens"], state["seconds"]
        log(f"resumed at step {step} after {seconds / 60:.1f} minutes")
    evaluation = [to_device(batch, device) for batch in held_out]
    stream = train_batches(config.seed + step)
    (folder / "loop.json").write_text(json.dumps(asdict(config), indent=2))

    def save() -> None:
        partial = checkpoint.with_suffix(".partial")
        state = {
            "model": model.state_dict(),
            "optimizers": [o.state_dict() for o in optimizers],
            "step": step,
            "tokens": tokens,
            "seconds": seconds,
        }
        torch.save(state, partial)
        partial.replace(checkpoint)

    def report(**values: float) -> None:
        row = {"step": step, "tokens": tokens, "minutes": round(seconds / 60, 2), **values}
        with (folder / "log.jsonl").open("a", encoding="utf-8") as history:
            history.write(json.dumps(row) + "\n")
        log("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))

    model.train()
    running: list[float] = []
    mark = (time.monotonic(), tokens)
    while step < config.max_steps and seconds < config.minutes * 60:
        started = time.monotonic()
        factor = learning_rate_factor(max(step / config.max_steps, seconds / (config.minutes * 60)))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
        batch = to_device(next(stream), device)
        value = loss(batch)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        running.append(value.item())
        if not math.isfinite(running[-1]):
            raise FloatingPointError(f"the loss is {running[-1]} at step {step}; lower the learning rate")
        step += 1
        tokens += int((batch["labels"] != IGNORE).sum()) + int(batch["attention_mask"].sum())
        seconds += time.monotonic() - started
        if step % config.report_every == 0:
            speed = (tokens - mark[1]) / (time.monotonic() - mark[0])
            report(loss=float(np.mean(running)), lr=config.learning_rate * factor, tokens_per_s=speed)
            running, mark = [], (time.monotonic(), tokens)
        if step % config.evaluate_every == 0:
            report(held_out_loss=held_out_loss(model, loss, evaluation))
        if step % config.checkpoint_every == 0:
            save()
    save()
    final = held_out_loss(model, loss, evaluation)
    report(held_out_loss=final)
    return {"steps": step, "tokens": tokens, "seconds": seconds, "held_out_loss": final}
