"""What a training run shows and keeps: progress bars, TensorBoard, ``metrics.jsonl`` and ``samples.jsonl``."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from neuro_latent_trainer import files
from neuro_latent_trainer.training import Observer

METRICS_FILE = "metrics.jsonl"
"""In a run's folder: one line a step and a validation."""
SAMPLES_FILE = "samples.jsonl"


class RunLog(Observer):
    """Observer of a training run; a context manager that closes what it opened."""

    def __init__(self, output_dir: Path, console: Console) -> None:
        output_dir.mkdir(parents=True, exist_ok=True)
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        )
        self._task: TaskID | None = None
        self._board = SummaryWriter(str(output_dir / "tensorboard"))
        self._folder = output_dir

    def __enter__(self) -> "RunLog":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        self._board.close()

    def begin(self, step: int, validated: bool) -> None:
        """Drop what was recorded after the checkpoint that the run goes on from, or before a run that starts anew."""
        for path in (self._folder / METRICS_FILE, self._folder / SAMPLES_FILE):
            path.touch()
            lines = path.read_bytes().splitlines(keepends=True)
            kept = [line for line in lines if _holds(line, step, validated)]
            if kept != lines:
                files.write(path, b"".join(kept))
                self._board.close()
                self._board = SummaryWriter(str(self._folder / "tensorboard"), purge_step=step + 1)

    def stage(self, name: str, total: int) -> None:
        self._task = self._progress.add_task(name, total=total, note="") if total else None

    def advance(self, n: int, note: str = "") -> None:
        if self._task is not None:
            self._progress.advance(self._task, n)
            if note:
                self._progress.update(self._task, note=note)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._record("train", step, values)

    def validation(self, step: int, values: dict[str, float]) -> None:
        self._record("validation", step, values)
        self._console.print(f"step {step}: validation loss {values['loss']:.4f} nats a token")

    def samples(self, step: int, pairs: list[tuple[str, str]]) -> None:
        for raw, enhanced in pairs:
            self._append(SAMPLES_FILE, {"step": step, "raw_prompt": raw, "enhanced_prompt": enhanced})
            self._board.add_text("sample", f"**{raw}**\n\n{enhanced}", step)

    def _record(self, kind: str, step: int, values: dict[str, float]) -> None:
        self._append(METRICS_FILE, {"kind": kind, "step": step, **values})
        for name, value in values.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)

    def _append(self, name: str, row: dict[str, Any]) -> None:
        with (self._folder / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _holds(line: bytes, step: int, validated: bool) -> bool:
    """Whether a recorded line is whole, and holds for a run that goes on after ``step``."""
    try:
        row = json.loads(line)
    except ValueError:
        return False
    return line.endswith(b"\n") and (row["step"], row.get("kind") == "validation" and not validated) <= (step, False)
