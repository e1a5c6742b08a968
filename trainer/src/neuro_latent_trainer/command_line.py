"""What the commands of the trainer share: options, and how they fail."""

from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

DataOption = Annotated[
    Path, typer.Option(help="Training data: .json, .jsonl, .csv or .parquet, one record a prompt.", metavar="FILE")
]
ColumnsOption = Annotated[
    str, typer.Option(help="Names of the file's columns, as raw=NAME,enhanced=NAME,failed=NAME.", metavar="MAP")
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
