"""What the commands of the trainer share: options, how they are stopped, and how they fail."""

import errno
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress

    from neuro_latent_trainer.data import Dataset
    from neuro_latent_trainer.evaluation.evaluate import Stage
    from neuro_latent_trainer.evaluation.responses import Judge
    from neuro_latent_trainer.responders import Responder
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

ResponderOption = Annotated[
    str | None,
    typer.Option(
        help="Language model that answers: a folder in Hugging Face's format, a name on the Hub, or a GGUF file; with "
        "--responder-url its name on that server.",
        metavar="MODEL",
    ),
]
ResponderUrlOption = Annotated[
    str | None,
    typer.Option(
        help="OpenAI-compatible server of --responder, with its /v1; its key is taken from OPENAI_API_KEY.",
        metavar="URL",
    ),
]
JudgeOption = Annotated[
    str | None,
    typer.Option(
        help="Model that compares answers where tasks have neither good answers nor checks, where the responder is.",
        metavar="MODEL",
        show_default="the responder",
    ),
]
AnswerTokensOption = Annotated[int, typer.Option(min=1, max=4096, help="The most tokens that the responder writes.")]
ConcurrencyOption = Annotated[int, typer.Option(min=1, max=256, help="Requests to --responder-url at a time.")]
PriceOption = Annotated[
    tuple[float, float] | None,
    typer.Option(help="Price of a million tokens read, and written: the cost is shown.", metavar="READ WRITTEN"),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        help="Where answers are kept, so that a run goes on and nothing is paid for twice.",
        metavar="FILE",
        show_default="~/.cache/neuro-latent/responses.sqlite",
    ),
]


def say(console: Console, text: str, style: str = "") -> None:
    """Print a text as it is, in one piece."""
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def fail(console: Console, message: str, code: int = 1) -> NoReturn:
    """Print an error and end the command."""
    say(console, f"error: {message}", "red")
    raise typer.Exit(code)


def explain(error: Exception) -> str:
    """An error as the command tells it; a full disk comes with the way out."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{error}; free some space, then go on from the last checkpoint with --resume, or start again"
    return str(error)


def read_data(
    console: Console, path: Path, columns: Mapping[str, str] | None, *, strict: bool = False, report: Path | None = None
) -> "Dataset":
    """Read a data file and print its bad rows; all of them go to the file ``report``, if one is named.

    Raises:
        DataError: as :func:`~neuro_latent_trainer.data.read_records`, or too many rows are bad to go on.
        ValueError: as there.
    """
    from neuro_latent_trainer.data import read_records, render_bad_rows

    data = read_records(path, columns, strict)
    if data.bad_rows:
        if report:
            report.parent.mkdir(parents=True, exist_ok=True)
            report.write_text("".join(f"{row}\n" for row in data.bad_rows), encoding="utf-8")
        say(console, render_bad_rows(data.bad_rows), "yellow")
    data.check_lost()
    return data


def open_judge(
    responder: str | None,
    url: str | None,
    judge: str | None,
    concurrency: int,
    cache: Path | None,
    answer_tokens: int,
    stage: "Stage",
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

    return Judge(opened(responder), stage, answer_tokens, opened(judge) if judge else None)


def told_by(bars: "Progress") -> "Stage":
    """Progress bars as the :data:`~neuro_latent_trainer.evaluation.evaluate.Stage` of an evaluation."""

    def stage(name: str, total: int) -> Callable[[int], None]:
        task = bars.add_task(name, total=total)
        return lambda done: bars.advance(task, done)

    return stage


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
