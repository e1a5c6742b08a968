"""The gateway as a server on a thread, beside the Triton that it asks."""

import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

from prometheus_client import make_asgi_app

from neuro_latent_client import AsyncClient
from neuro_latent_serving.gateway.app import create_app
from neuro_latent_serving.gateway.config import GatewayConfig
from neuro_latent_serving.gateway.middleware import GatewayMetrics, make_log
from neuro_latent_serving.web.asgi import AsgiServer
from neuro_latent_serving.web.ports import numeric_host


def private(path: str, flags: int) -> int:
    """Open a file that, where it is made, only its owner can read."""
    return os.open(path, flags, 0o600)


def triton_client(config: GatewayConfig, url: str) -> AsyncClient:
    """A client of the Triton at ``url``. It does not try again by itself: the caller is told to, and when."""
    return AsyncClient(url, timeout=config.timeout, retries=0)


class GatewayServer(AsgiServer):
    """The gateway; its log file is open while it is there.

    Attributes:
        metrics_url: where Prometheus finds ``metrics``.

    Raises:
        ServeError: a port is taken, or the file of API keys cannot be read.
    """

    def __init__(self, config: GatewayConfig, connect: Callable[[], AsyncClient]) -> None:
        self.metrics = GatewayMetrics()
        self._drain_timeout = config.drain_timeout
        with ExitStack() as stack:
            log = sys.stderr
            if config.log_file:
                log = stack.enter_context(open(config.log_file, "a", encoding="utf-8", buffering=1, opener=private))
            host = numeric_host(config.host)
            app = create_app(config, connect, make_log(log, quiet=config.quiet), self.metrics)
            self._metrics_server = None
            if config.metrics_port is not None:
                metrics = make_asgi_app(self.metrics.registry)
                self._metrics_server = AsgiServer(metrics, "gateway-metrics", host, config.metrics_port, lifespan="off")
                stack.callback(self._metrics_server.stop, lambda: True)
            super().__init__(
                app,
                "gateway",
                host,
                config.port,
                lifespan="on",
                proxy_headers=bool(config.trusted_proxies),
                forwarded_allow_ips=list(config.trusted_proxies),
                timeout_graceful_shutdown=config.drain_timeout,
            )
            self.metrics_url = f"{(self._metrics_server or self).url}/metrics"
            self._opened = stack.pop_all()

    def __enter__(self) -> "GatewayServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(lambda: True)

    def start(self) -> None:
        """Returns when it listens; a second start changes nothing."""
        if self._metrics_server is not None:
            self._metrics_server.start()
        super().start()

    def check(self) -> None:
        """Raise a ServeError when it has ended by itself."""
        if self._metrics_server is not None:
            self._metrics_server.check()
        super().check()

    def stop(self, force: Callable[[], bool]) -> None:
        """Let requests in flight finish for up to ``drain_timeout`` seconds, then end; at once when ``force`` says so.

        Safe twice, and before the start.
        """
        drained = time.monotonic() + self._drain_timeout
        super().stop(lambda: force() or time.monotonic() > drained)
        with suppress(OSError):  # what is left of the log, on a full disk
            self._opened.close()
