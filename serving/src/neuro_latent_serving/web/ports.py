"""Addresses and ports of servers: checked before the start, because Triton's own message names no option."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Annotated

import typer

from neuro_latent_serving.errors import ServeError, UsageError
from neuro_latent_serving.options import Port, checked


@checked
class Ports:
    """TCP ports of Triton's HTTP, gRPC and metrics; 0 asks for any free port.

    Raises:
        UsageError: a port cannot be used, or two are the same.
    """

    http: Annotated[Port, typer.Option("--http-port", help="HTTP port; 0 takes any free one.")] = 8000
    grpc: Annotated[Port, typer.Option("--grpc-port", help="gRPC port; 0 takes any free one.")] = 8001
    metrics: Annotated[
        Port, typer.Option("--metrics-port", help="Port of the Prometheus metrics; 0 takes any free one.")
    ] = 8002

    def __post_init__(self) -> None:
        fixed = [port for port in (self.http, self.grpc, self.metrics) if port]
        if len(set(fixed)) < len(fixed):
            raise UsageError(
                f"--http-port {self.http}, --grpc-port {self.grpc} and --metrics-port {self.metrics}: two are the same",
                "HTTP, gRPC and metrics each need a port of their own.",
            )


FREE_PORTS = Ports(0, 0, 0)
"""Any three free ports: what tests use."""


def numeric_host(host: str) -> str:
    """``host`` as an IPv4 address, the only form in which Triton takes it for all three of its servers."""
    try:
        return str(socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise UsageError(
            f"--host {host}: not an IPv4 address or the name of one ({error.strerror})",
            "Use 127.0.0.1 for this machine only, or 0.0.0.0 for all of its networks.",
        ) from error


def is_this_machine(host: str) -> bool:
    """Whether only programs of this machine reach a numeric address."""
    return host.startswith("127.")


def claim_ports(host: str, ports: Ports) -> Ports:
    """``ports`` with every 0 replaced by a free port; a ServeError names the first that is taken."""
    with ExitStack() as stack:
        # Fixed ports are bound first, and all are held together, so that a free one is never one of the others.
        held: dict[str, int] = {}
        for name, port in sorted(asdict(ports).items(), key=lambda item: item[1] == 0):
            held[name] = stack.enter_context(bound(host, name, port))
        return Ports(**held)


@contextmanager
def bound(host: str, name: str, port: int) -> Iterator[int]:
    """The number of a port that is held while the block runs; 0 takes a free one. A ServeError says why it cannot."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free to a server
        try:
            listener.bind((host, port))
        except OSError as error:
            raise bind_error(host, name, port, error) from error
        yield listener.getsockname()[1]


def bind_error(host: str, name: str, port: int, error: OSError) -> ServeError:
    if error.errno == errno.EADDRINUSE:
        return ServeError(
            f"port {port} on {host} is taken by another program (--{name}-port {port})",
            f"Stop that program, or choose another port with --{name}-port; --{name}-port 0 takes any free one.",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return UsageError(f"--host {host}: this machine has no such address", "Use 127.0.0.1 or 0.0.0.0.")
    return ServeError(f"port {port} on {host} cannot be used (--{name}-port {port}): {error.strerror}")
