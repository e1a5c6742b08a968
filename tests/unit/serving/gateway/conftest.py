"""A gateway on a free port, in front of the client library's fake server."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from neuro_latent_client.testing import FakeServer
from neuro_latent_serving.gateway.config import GatewayConfig
from neuro_latent_serving.gateway.server import GatewayServer

Start = Callable[..., httpx2.Client]
Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def triton() -> FakeServer:
    return FakeServer({"Create a function": "In Python."})


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """What the gateway logs."""
    return tmp_path / "log"


def logged(log: Path, event: str = "request", count: int = 1) -> list[dict[str, Any]]:
    """The lines of an event, once there are so many: an answer may arrive before its line, or half of it."""
    lines: list[dict[str, Any]] = []
    deadline = time.monotonic() + 5
    while len(lines) < count and time.monotonic() < deadline:
        whole = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        lines = [line for line in map(json.loads, whole) if line["event"] == event]
    return lines


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture
def start(triton: FakeServer, stack: ExitStack, log: Path) -> Start:
    """Starts a gateway with the given settings; a client of it."""

    def make(connect: Callable[[], Any] | None = None, **settings: Any) -> httpx2.Client:
        server = GatewayServer(
            GatewayConfig(port=0, log_file=log, **settings),
            connect or (lambda: triton.async_client(retries=0, timeout=30)),
        )
        stack.enter_context(server)
        server.start()
        client = stack.enter_context(httpx2.Client(base_url=server.url, timeout=30, trust_env=False))
        client.server = server  # type: ignore[attr-defined] # for those who stop it
        return client

    return make


@pytest.fixture
def rest(start: Start) -> httpx2.Client:
    """A gateway with its defaults."""
    return start()


@pytest.fixture
def run() -> Iterator[Run]:
    """Start a command of the gateway in a process of its own, with more variables in its environment."""
    started = []

    def start(command: str, *options: str | Path, **environment: str) -> "subprocess.Popen[str]":
        code = f"import typer; from neuro_latent_serving.gateway.cli import {command}; typer.run({command})"
        arguments = [sys.executable, "-c", code, *map(str, options)]
        process = subprocess.Popen(
            arguments, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
