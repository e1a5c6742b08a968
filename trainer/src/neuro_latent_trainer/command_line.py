"""What the commands of the trainer share: options, how they are stopped, and how they fail."""

import errno
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

if TYPE_CHECKING:
    from neuro_latent_trainer.training import Run

DataOption = Annotated[
    Path, typer.Option(help="Training data: .json, .jsonl, .csv or .parquet, one record a prompt.", metavar="FILE")
]
ColumnsOption = Annotated[
    str,
    typer.Option(
        help="Names of the file's columns, as raw=NAME,enhanced=NAME,complement=NAME,failed=NAME,kind=NAME.",
        metavar="MAP",
    ),
]
EmbeddingsOption = Annotated[
    Path | None,
    typer.Option(
        help="Cache of the frozen encoder's embeddings; runs on the same texts can share one.",
        metavar="DIR",
        show_default="RUN/embeddings",
    ),
]


def fail(console: Console, message: str, code: int = 1) -> NoReturn:
    """Print an error in one piece and end the command."""
    console.print(f"error: {message}", style="red", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(code)


def explain(error: Exception) -> str:
    """An error as the command tells it; a full disk comes with the way out."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{error}; free some space, then go on from the last checkpoint with --resume, or start again"
    return str(error)


@contextmanager
def stopping_with_a_checkpoint(run: "Run", console: Console) -> Iterator[None]:
    """While the run executes, Ctrl-C and SIGTERM end it after its step."""

    def stop(signum: int, frame: FrameType | None) -> None:
        run.stop_requested = True
        console.print("stopping after this step …")

    previous = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
