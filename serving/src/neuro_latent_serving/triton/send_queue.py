"""The queue of responses to send: sending crosses a process boundary, and the engine's thread must not wait for it."""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from neuro_latent_core.errors import PublicError
from neuro_latent_serving.engine import Event
from neuro_latent_serving.triton.messages import log


def merge(events: list[Event]) -> list[Event]:
    """One event a sequence: pieces joined, the newest state kept. A slow connection delays text; nothing piles up."""
    merged: dict[int, Event] = {}
    for event in events:
        before = merged.get(event.sequence_index)
        if before is not None:
            event = replace(event, piece=before.piece + event.piece)
        merged[event.sequence_index] = event
    return list(merged.values())


class PendingResponses:
    """The responses that one request still has to get.

    Args:
        send_queue: sends them.
        send_event: sends one response.
        send_end: sends the final response, an error where there is one.
    """

    def __init__(
        self,
        send_queue: "SendQueue",
        send_event: Callable[[Event], None],
        send_end: Callable[[PublicError | None], None],
    ) -> None:
        self._send_queue, self._send_event, self._send_end = send_queue, send_event, send_end
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self._ended = False
        self._error: PublicError | None = None

    def put(self, event: Event) -> None:
        """Send this event, joined with what is waiting already."""
        with self._lock:
            self._events.append(event)
            first = len(self._events) == 1
        if first:
            self._send_queue.put(self._deliver)

    def end(self, error: PublicError | None) -> None:
        """Send the end, after all events."""
        with self._lock:
            self._ended, self._error = True, error
        self._send_queue.put(self._deliver)

    def _deliver(self) -> None:
        """Send what is waiting now; called by the send queue."""
        with self._lock:
            events, self._events = self._events, []
            ended, self._ended = self._ended, False
        try:
            for event in merge(events):
                self._send_event(event)
        finally:
            if ended:  # without its end a request stays in Triton for ever
                self._send_end(self._error)


class SendQueue:
    """One thread that sends everything in order: Triton's objects are used by as few threads as possible.

    Attributes:
        tick: called on that thread, at most every ``TICK_S`` seconds; set before there is something to send.
    """

    TICK_S = 0.5

    def __init__(self) -> None:
        self.tick: Callable[[], None] | None = None
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="responses", daemon=True)
        self._thread.start()

    def put(self, deliver: Callable[[], None]) -> None:
        """Queue a call that sends something."""
        self._queue.put(deliver)

    def close(self) -> None:
        """Send what is queued, then stop."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        ticked = 0.0
        while True:
            try:
                deliver = self._queue.get(timeout=self.TICK_S)
                if deliver is None:
                    return
                self._try(deliver)
            except queue.Empty:
                pass
            if self.tick and time.monotonic() - ticked >= self.TICK_S:
                ticked = time.monotonic()
                self._try(self.tick)

    @staticmethod
    def _try(call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            # The client is gone or Triton is stopping: nobody is left to tell, and the others must go on.
            log.warning("a response could not be sent: %s", type(error).__name__)
