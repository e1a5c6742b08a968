"""Responses on their way out: sending crosses a process boundary, and the engine's thread must not wait for it."""

import queue
import threading
from collections.abc import Callable
from dataclasses import replace

from neuro_latent_serving.engine import Event
from neuro_latent_serving.errors import ServingError
from neuro_latent_serving.triton.messages import log


def merge(events: list[Event]) -> list[Event]:
    """One event a sequence: pieces joined, the newest state kept. So a slow line delays text, but never piles it up."""
    merged: dict[int, Event] = {}
    for event in events:
        before = merged.get(event.sequence_index)
        if before is not None and not event.replaces:
            event = replace(event, piece=before.piece + event.piece, replaces=before.replaces)
        merged[event.sequence_index] = event
    return list(merged.values())


class Mailbox:
    """What one request still has to be sent.

    Args:
        outbox: who carries it.
        send_event: sends one response.
        send_end: sends the final response, an error where there is one.
    """

    def __init__(
        self, outbox: "Outbox", send_event: Callable[[Event], None], send_end: Callable[[ServingError | None], None]
    ) -> None:
        self._outbox, self._send_event, self._send_end = outbox, send_event, send_end
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self._ended = False
        self._error: ServingError | None = None

    def put(self, event: Event) -> None:
        """Send this event, joined with what is waiting already."""
        with self._lock:
            self._events.append(event)
            first = len(self._events) == 1
        if first:
            self._outbox.carry(self)

    def end(self, error: ServingError | None) -> None:
        """Send the end, after all events."""
        with self._lock:
            self._ended, self._error = True, error
        self._outbox.carry(self)

    def deliver(self) -> None:
        """Send what is waiting now; called by the outbox."""
        with self._lock:
            events, self._events = self._events, []
            ended, self._ended = self._ended, False
        try:
            for event in merge(events):
                self._send_event(event)
        finally:
            if ended:  # without its end a request stays in Triton for ever
                self._send_end(self._error)


class Outbox:
    """One thread that delivers mailboxes, in the order in which they have something to send."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Mailbox | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="responses", daemon=True)
        self._thread.start()

    def carry(self, mailbox: Mailbox) -> None:
        """Deliver this mailbox soon."""
        self._queue.put(mailbox)

    def close(self) -> None:
        """Deliver what is queued, then stop."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (mailbox := self._queue.get()) is not None:
            try:
                mailbox.deliver()
            except Exception as error:
                # The client is gone or Triton is stopping: nobody is left to tell, and the others must go on.
                log.warning("a response could not be sent: %s", type(error).__name__)
