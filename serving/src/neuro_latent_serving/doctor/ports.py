"""The ports of a server: free, taken, or served by one of this project already."""

import http.client
import json
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict

from neuro_latent_core.protocol import UNARY_MODEL
from neuro_latent_serving.doctor.catalogue import Finding, Outcome
from neuro_latent_serving.doctor.subject import Subject
from neuro_latent_serving.server.errors import ServeError, UsageError
from neuro_latent_serving.server.health import Health
from neuro_latent_serving.server.ports import bound, numeric_host

PROBE_TIMEOUT_S = 1.0


def check(subject: Subject) -> Iterator[Outcome]:
    """Whether a server could listen on its ports, or does already. 0 is any port, so nothing to check.

    Raises:
        UsageError: this machine has no such address.
    """
    options = subject.options
    host, gateway_host = numeric_host(options.host), numeric_host(options.gateway_host)
    taken: dict[str, tuple[int, ServeError]] = {}
    for name, port in {**asdict(options.ports), "gateway": options.gateway_port}.items():
        if port:
            try:
                with bound(gateway_host if name == "gateway" else host, name, port):
                    yield f"port {port} is free ({name})"
            except UsageError:
                raise
            except ServeError as error:
                taken[name] = port, error
    is_triton = "http" in taken and is_ready(Health(reached(host), taken["http"][0], timeout=PROBE_TIMEOUT_S))
    is_gateway = "gateway" in taken and answers_as_gateway(reached(gateway_host), taken["gateway"][0])
    for name, (port, why) in taken.items():
        if is_gateway if name == "gateway" else is_triton:
            what = f"{name}: a ready server with the models of this project listens there"
            yield Finding("port-served", str(port), what, f"Stop it to start another, or use --{name}-port 0.")
        else:
            yield Finding("port-taken", str(port), why.message, why.hint)


def reached(host: str) -> str:
    """Where a server that listens on an address can be asked."""
    return "127.0.0.1" if host == "0.0.0.0" else host


def is_ready(server: Health) -> bool:
    """Whether it serves the models of this project."""
    return server.waiting_for((UNARY_MODEL,)) is None


def answers_as_gateway(host: str, port: int) -> bool:
    """Whether what listens there says of itself that it is ready, as a gateway does."""
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/health", timeout=PROBE_TIMEOUT_S) as response:
            return bool(json.load(response) == {"ready": True})
    except (OSError, ValueError, http.client.HTTPException):  # a program of whatever kind listens there
        return False
