"""The gateway as a server on a thread, beside the Triton that it asks."""

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import uvicorn

from neuro_latent_client import AsyncClient
from neuro_latent_serving.gateway.app import create_app
from neuro_latent_serving.gateway.config import GatewayConfig
from neuro_latent_serving.gateway.connection import Connection
from neuro_latent_serving.gateway.middleware import make_log
from neuro_latent_serving.server.errors import ServeError
from neuro_latent_serving.server.ports import bind_error, numeric_host

POLL_S = 0.05
BACKLOG = 2048


def private(path: str, flags: int) -> int:
    """Open a file that, where it is made, only its owner can read."""
    return os.open(path, flags, 0o600)


def triton_client(config: GatewayConfig, url: str) -> AsyncClient:
    """A client of the Triton at ``url``. It does not try again by itself: the caller is told to, and when."""
    return AsyncClient(url, timeout=config.timeout, retries=0)


class GatewayServer:
    """Takes its port when it is made, answers from :meth:`start` on.

    Raises:
        ServeError: the port is taken, or the file of API keys cannot be read.
    """

    def __init__(self, config: GatewayConfig, connect: Callable[[], AsyncClient]) -> None:
        host = numeric_host(config.host)
        with ExitStack() as stack:
            log = sys.stderr
            if config.log_file:
                log = stack.enter_context(open(config.log_file, "a", encoding="utf-8", buffering=1, opener=private))
            app = create_app(config, connect, make_log(log, quiet=config.quiet))
            self._socket = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                self._socket.bind((host, config.port))
            except OSError as error:
                raise bind_error(host, "gateway", config.port, error) from error
            self._opened = stack.pop_all()
        shown = "127.0.0.1" if host == "0.0.0.0" else host
        self.url = f"http://{shown}:{self._socket.getsockname()[1]}"
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                app,
                lifespan="on",
                log_config=None,
                access_log=False,
                backlog=BACKLOG,
                server_header=False,
                http=Connection,
                proxy_headers=bool(config.trusted_proxies),
                forwarded_allow_ips=list(config.trusted_proxies),
                timeout_graceful_shutdown=config.drain_timeout,
            )
        )
        self._thread = threading.Thread(
            target=self._uvicorn.run, kwargs={"sockets": [self._socket]}, name="gateway", daemon=True
        )

    def __enter__(self) -> "GatewayServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(lambda: True)

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
            raise ServeError("the gateway ended by itself")

    def stop(self, force: Callable[[], bool]) -> None:
        """Let requests in flight finish, then end; at once when ``force`` says so. Safe twice, and before the start."""
        self._uvicorn.should_exit = True
        while self._thread.is_alive():
            if force():
                logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # it logs what it cuts off as errors
                self._uvicorn.force_exit = True
            self._thread.join(POLL_S)
        self._opened.close()
