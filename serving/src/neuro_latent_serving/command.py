"""What the commands share: errors as text, and Ctrl-C, SIGTERM and SIGHUP as flags that loops poll."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer
from rich.console import Console
from rich.markup import escape

from neuro_latent_serving.errors import ServeError

console = Console(stderr=True)


def warn(text: str) -> None:
    """Tell of something that is not as it should be."""
    console.print(f"[yellow]warning:[/] {escape(text)}", soft_wrap=True, highlight=False)


@contextmanager
def reported_errors() -> Iterator[None]:
    """Show a ServeError as text and end with its exit code."""
    try:
        yield
    except ServeError as error:
        console.print("[red]error:[/]", end=" ")
        console.print(error.message, soft_wrap=True, markup=False, highlight=False)
        if error.hint:
            console.print(error.hint, soft_wrap=True, markup=False, highlight=False)
        raise typer.Exit(error.exit_code) from None


class StopSignals:
    """Counts the signals to stop while the ``with`` block runs: the first drains, the second kills.

    A plain counter, and no ``threading.Event``: a handler can interrupt the main thread inside the event's own lock.
    """

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # nohup
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type] # as signal.signal gave it

    def requested(self) -> bool:
        """Whether we were asked to stop."""
        return self.count > 0

    def insisted(self) -> bool:
        """Whether we were asked again."""
        return self.count > 1

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
