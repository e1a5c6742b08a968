"""Ctrl-C in the commands that ask a server: it cancels the request, and the process ends within a bounded time."""

import os
import select
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from neuro_latent_client.client import Client

LIMIT_S = 3.0
"""From Ctrl-C to the end: a moment to cancel the request, then one for its answer to end."""

EXIT_CODE = 130
_DONE = b"\0"


@contextmanager
def cancelled_by_interrupt(client: Client) -> Iterator[None]:
    """In the block, Ctrl-C cancels what ``client`` asks for; KeyboardInterrupt is raised behind the block.

    Never inside it: raised in the middle of gRPC's Python code, it can leave a lock of gRPC taken, and whatever uses
    the channel afterwards waits for ever. Another thread hears of the signal, cancels the request, and ends the process
    when the block is not left in time, or at a second Ctrl-C. Where somebody else handles SIGINT, or it is ignored,
    nothing is changed.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    interrupted = threading.Event()

    def watch() -> None:
        if reading.recv(1) == _DONE:
            return
        interrupted.set()
        threading.Thread(target=client._cancel_latest, daemon=True).start()
        readable, _, _ = select.select([reading], [], [], LIMIT_S)
        if not readable or reading.recv(1) != _DONE:
            os._exit(EXIT_CODE)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    except Exception:
        if not interrupted.is_set():  # else it failed because it was cancelled
            raise
    finally:
        writing.send(_DONE)
        watcher.join()
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        reading.close()
        writing.close()
    if interrupted.is_set():
        raise KeyboardInterrupt
