"""Clients of three servers that one script moves: fake Tritons over gRPC and HTTP, and the client's own fake."""

import os
import threading
from collections.abc import Iterator
from concurrent import futures
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2_grpc

from neuro_latent_client import AsyncClient, Client, _retry
from neuro_latent_serving.gateway.config import GatewayConfig
from neuro_latent_serving.gateway.server import GatewayServer
from tests.unit.client.blocking import BlockingClient
from tests.unit.client.fake_triton import GrpcServicer, HttpHandler, Script, response


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def make_response() -> Any:
    return response


@pytest.fixture
def grpc_url(script: Script) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(8))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(GrpcServicer(script), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"grpc://127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def http_url(script: Script) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (HttpHandler,), {"script": script}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def rest_url(script: Script) -> Iterator[str]:
    """A real gateway in front of the fake."""
    config = GatewayConfig(port=0, log_file=Path(os.devnull))
    with GatewayServer(config, lambda: script.async_client(retries=0)) as server:
        server.start()
        yield server.url


@pytest.fixture(params=["grpc", "http", "rest"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture(params=["grpc", "http", "rest", "fake"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["sync", "async"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_client(transport: str, mode: str, script: Script, request: pytest.FixtureRequest) -> Any:
    """Makes a client of one kind over one transport, with the settings that a test wants."""
    if transport == "fake":
        makers: Any = {"sync": script.client, "async": script.async_client}
    else:
        url = request.getfixturevalue(f"{transport}_url")
        makers = {"sync": partial(Client, url), "async": partial(AsyncClient, url)}
    return makers[mode] if mode == "sync" else partial(BlockingClient, makers[mode])


@pytest.fixture
def client(make_client: Any) -> Iterator[Any]:
    with make_client() as client:
        yield client


@pytest.fixture(autouse=True)
def no_waiting_between_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_retry, "FIRST_WAIT_S", 0.0)
