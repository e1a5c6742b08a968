"""One tritonserver for the tests of this folder, which serves a tiny random pair, and the torch model it must equal."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from neuro_latent_client import Client
from neuro_latent_serving.gateway.config import GatewayConfig
from neuro_latent_serving.gateway.server import GatewayServer, triton_client
from neuro_latent_serving.launch import FREE_PORTS, ServerConfig, TritonServer
from neuro_latent_trainer.model import PromptOptimizer
from neuro_latent_trainer.sample import sample_rows
from tests.triton.wire import PLAIN, TIMEOUT

PROMPTS = 24


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[TritonServer]:
    # Triton 24.10 never unloads an ensemble of which a gRPC stream was left early; stopping it takes all of the time.
    with TritonServer(repository, ServerConfig(ports=FREE_PORTS, drain_timeout=3, environment=PLAIN)) as running:
        yield running


@pytest.fixture(scope="session")
def grpc(server: TritonServer) -> Iterator[Client]:
    with Client(server.grpc_url, timeout=TIMEOUT) as client:
        yield client


@pytest.fixture(scope="session")
def http(server: TritonServer) -> Iterator[Client]:
    with Client(server.http_url, timeout=TIMEOUT) as client:
        yield client


@contextmanager
def through_gateway(server: TritonServer) -> Iterator[Client]:
    """A client of a gateway in front of a server."""
    config = GatewayConfig(port=0, log_file=Path(os.devnull))
    with GatewayServer(config, lambda: triton_client(config, server.grpc_url)) as gateway:
        gateway.start()
        with Client(gateway.url, timeout=TIMEOUT) as client:
            yield client


@pytest.fixture(scope="session")
def rest(server: TritonServer) -> Iterator[Client]:
    with through_gateway(server) as client:
        yield client


@pytest.fixture(params=["grpc", "http", "rest"])
def client(request: pytest.FixtureRequest) -> Client:
    """Each transport in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def oracle(optimizer: PromptOptimizer) -> PromptOptimizer:
    """What the server must write."""
    torch.set_num_threads(1)  # the server wants the cores
    return optimizer


@pytest.fixture(scope="session")
def prompts() -> list[str]:
    return [row["raw_prompt"] for row in sample_rows()[:PROMPTS]]
