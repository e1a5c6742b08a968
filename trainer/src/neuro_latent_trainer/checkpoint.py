"""Checkpoints: everything a run needs to go on as if it had never stopped. Loadable with ``weights_only=True``."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

FINAL = "neuro_final_model.pt"
PARTIAL = "in_progress.pt"
_EPOCH_NAME = re.compile(r"phase(\d)_epoch_(\d+)\.pt")


class CheckpointError(RuntimeError):
    """A checkpoint is missing, damaged, or belongs to other settings."""


@dataclass(frozen=True, order=True)
class Position:
    """Where a run stands: the next batch to train on."""

    phase: int = 1
    epoch: int = 0
    batch: int = 0
    step: int = 0
    """Optimizer steps taken so far, over both phases."""


def epoch_file(phase: int, epoch: int) -> str:
    """The file name after an epoch; epochs are counted from 1 in file names."""
    return f"phase{phase}_epoch_{epoch}.pt"


def save(path: Path, state: dict[str, Any]) -> None:
    """Write by rename, so that an interruption never leaves half a checkpoint."""
    partial = path.with_suffix(".writing")
    torch.save(state, partial)
    partial.replace(path)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        CheckpointError: it is missing, damaged, or something else.
    """
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        raise CheckpointError(f"no checkpoint at {path}") from None
    except Exception as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {type(error).__name__}") from error
    if not isinstance(state, dict) or "position" not in state:
        raise CheckpointError(f"{path} is no checkpoint of a training run")
    return state


def all_in(run: Path) -> list[Path]:
    """The checkpoints of a run folder that training can resume from, in no particular order."""
    found = [p for p in run.glob("*.pt") if _EPOCH_NAME.fullmatch(p.name) or p.name in (FINAL, PARTIAL)]
    return sorted(found)


def newest(run: Path) -> Path:
    """The checkpoint of a run that has come furthest.

    Raises:
        CheckpointError: the run has none.
    """
    found = all_in(run)
    if not found:
        raise CheckpointError(f"no checkpoint in {run}: expected {epoch_file(1, 1)} or alike")
    return max(found, key=lambda p: (load(p)["position"]["step"], p.name == FINAL))
