"""Checkpoints: everything a run needs to go on as if it had never stopped. Loadable with ``weights_only=True``."""

import io
import re
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from neuro_latent_trainer import files
from neuro_latent_trainer.errors import TrainerError

FINAL = "neuro_final_model.pt"
PARTIAL = "in_progress.pt"
_EPOCH_NAME = re.compile(r"phase(\d)_epoch_(\d+)\.pt")


class CheckpointError(TrainerError):
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
    """Write a checkpoint whole, so that an interruption never leaves half of one.

    Raises:
        OSError: it cannot be written.
    """
    content = io.BytesIO()
    torch.save(state, content)
    files.write(path, content.getbuffer())


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint, and compare its checksums: it is a zip file, which has one for each of its parts.

    Raises:
        CheckpointError: it is missing, damaged, or something else.
        OSError: it is there and cannot be read now; it may be whole.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if part := archive.testzip():
                raise zipfile.BadZipFile(f"the checksum of {part} is wrong")
        state = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        raise CheckpointError(f"no checkpoint at {path}") from None
    except (OSError, MemoryError):
        raise
    except Exception as error:
        what = str(error) if isinstance(error, zipfile.BadZipFile) else type(error).__name__
        raise CheckpointError(
            f"cannot read the checkpoint {path}: {what}; resuming from the last takes the newest one that can be read"
        ) from error
    if not isinstance(state, dict) or "position" not in state:
        raise CheckpointError(f"{path} is no checkpoint of a training run")
    return state


def all_in(run: Path) -> list[Path]:
    """The checkpoints of a run folder that training can resume from, in no particular order."""
    found = [p for p in run.glob("*.pt") if _EPOCH_NAME.fullmatch(p.name) or p.name in (FINAL, PARTIAL)]
    return sorted(found)


def newest(run: Path, tell: Callable[[str], object] = warnings.warn) -> Path:
    """The checkpoint of a run that has come furthest, of those that can be read; ``tell`` hears of the others.

    Raises:
        CheckpointError: the run has none.
    """
    found = all_in(run)
    if not found:
        raise CheckpointError(f"no checkpoint in {run}: expected {epoch_file(1, 1)} or alike")
    whole: list[tuple[int, bool, Path]] = []
    for path in found:
        try:
            whole.append((load(path)["position"]["step"], path.name == FINAL, path))
        except CheckpointError as error:
            tell(str(error))
    if not whole:
        raise CheckpointError(f"no checkpoint in {run} can be read: train again, with another output folder")
    return max(whole)[-1]
