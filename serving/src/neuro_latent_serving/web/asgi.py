"""An ASGI application on a thread of its own."""

import logging
import math
import resource
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import uvicorn

from neuro_latent_serving.errors import ServeError
from neuro_latent_serving.web.connection import Connection
from neuro_latent_serving.web.ports import bind_error

POLL_S = 0.05
FORCED_S = 2.0
BACKLOG = 2048
OPEN_FILES = 4096
"""For the connections of two servers and what they lead to; many systems begin with 1,024."""


class AsgiServer:
    """Takes its port when it is made, answers from :meth:`start` on.

    ``name`` is the option's, ``--NAME-port``; 0 takes any free one. ``settings`` are uvicorn's.

    Raises:
        ServeError: the port is taken.
    """

    def __init__(self, app: Any, name: str, host: str, port: int, **settings: Any) -> None:
        self._name = name
        _allow_open_files()
        # With the protocol named, asyncio sets TCP_NODELAY; without it every answer takes 40 ms longer.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
        except OSError as error:
            self._socket.close()
            raise bind_error(host, name, port, error) from error
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{self.port}"
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                log_config=None,
                access_log=False,
                backlog=BACKLOG,
                server_header=False,
                **settings,
            )
        )
        self._thread = threading.Thread(
            target=self._uvicorn.run, kwargs={"sockets": [self._socket]}, name=name, daemon=True
        )

    def start(self) -> None:
        """Returns when it listens; a second start changes nothing."""
        if self._uvicorn.started:
            return
        self._thread.start()
        while not self._uvicorn.started:
            self.check()
            time.sleep(POLL_S)

    def check(self) -> None:
        """Raise a ServeError when it has ended by itself."""
        if not self._thread.is_alive():
            raise ServeError(f"the {self._name} server ended by itself")

    def stop(self, force: Callable[[], bool]) -> None:
        """Let requests in flight finish, then end; at once when ``force`` says so. Safe twice, and before the start.

        A thread that does not end within FORCED_S after that ends with the process.
        """
        self._uvicorn.should_exit = True
        given_up, log = math.inf, logging.getLogger("uvicorn.error")
        level = log.level
        while self._thread.is_alive() and time.monotonic() < given_up:
            if force():
                given_up = min(given_up, time.monotonic() + FORCED_S)
                log.setLevel(logging.CRITICAL)  # it logs what it cuts off as errors
                self._uvicorn.force_exit = True
            self._thread.join(POLL_S)
        log.setLevel(level)
        self._socket.close()


def _allow_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
