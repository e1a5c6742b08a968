"""One request and all that it is told."""

import threading
from dataclasses import dataclass, field

from neuro_latent_core.errors import PublicError
from neuro_latent_core.options import RequestOptions
from neuro_latent_serving.engine import Event, Request

PATIENCE_S = 60


@dataclass(eq=False)
class Asker:
    """One request and all that it is told."""

    text: str
    options: RequestOptions
    request: Request = field(init=False)
    cancel_after: int | None = None
    """Ask to be cancelled after so many events."""
    cancelled: bool = False
    events: list[Event] = field(default_factory=list)
    ends: list[PublicError | None] = field(default_factory=list)
    late: list[Event] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def on_event(self, event: Event) -> None:
        (self.late if self.ends else self.events).append(event)
        if self.cancel_after is not None and len(self.events) >= self.cancel_after:
            self.cancelled = True

    def on_end(self, error: PublicError | None) -> None:
        self.ends.append(error)
        self.done.set()

    def wait(self) -> "Asker":
        assert self.done.wait(PATIENCE_S), f"never answered: {self.text!r}"
        return self

    @property
    def last(self) -> list[Event]:
        """The final event of each text."""
        finals = [e for e in self.events if e.finish_reason]
        return sorted(finals, key=lambda e: e.sequence_index)

    @property
    def answer(self) -> Event:
        (event,) = self.wait().last
        return event

    def joined(self, index: int = 0) -> str:
        """What a streaming client has on its screen in the end."""
        text = ""
        for event in self.events:
            if event.sequence_index == index:
                text += event.piece
        return text
