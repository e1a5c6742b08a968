"""Who may ask a Triton for what: the front before its HTTP, and the secret of a running server."""

import gzip
import json
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from neuro_latent_serving.adapters.access import ServerAccess, find_access
from neuro_latent_serving.launch import FREE_PORTS, ServerConfig, TritonServer
from neuro_latent_serving.launch.front import MAX_DEPTH, depth
from neuro_latent_serving.launch.process import CLOSED_APIS
from neuro_latent_serving.web.foreign_page import foreign_page

pytestmark = pytest.mark.slow

GENERATE = "/v2/models/echo/generate"
CLOSED = [
    "/v2/repository/index",
    "/v2/repository/models/echo/load",
    "/v2/systemsharedmemory/region/a/register",
    "/v2/cudasharedmemory/status",
    "/v2/trace/setting",
    "/v2/models/echo/trace/setting",
    "/v2/logging",
    "/v2/models/%2e%2e/logging",
]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def server(fake_server, repository: Path) -> Iterator[TritonServer]:
    config = ServerConfig(ports=FREE_PORTS, tritonserver=fake_server.program, ready_timeout=60, kill_after=0.2)
    with TritonServer(repository, config) as running:
        yield running


def test_what_asks_for_no_answer_wants_the_secret_which_no_command_line_holds(
    server: TritonServer, fake_server, state: Path
) -> None:
    access = find_access(server.grpc_url)
    assert access is not None
    assert access == find_access(server.http_url)
    assert (access.http, access.grpc) == (server.http_url, server.grpc_url)
    (file,) = state.glob("**/*.json")
    assert (stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(file.parent.stat().st_mode)) == (0o600, 0o700)
    assert access.secret not in str(fake_server.started)
    assert access.secret not in repr(access)
    with httpx2.Client(base_url=server.http_url, trust_env=False) as client:
        for path in CLOSED:
            for headers in ({}, {"neuro-latent": "1"}, {"neuro-latent": access.secret[:-1]}):
                assert client.post(path, headers=headers, json={}).status_code == 403, path
        assert client.post(CLOSED[0], headers={"neuro-latent": access.secret}, json={}).status_code == 200
        assert client.post(GENERATE, json={}).status_code == 200
    server.stop()
    assert find_access(server.grpc_url) is None
    (option,) = [word for word in fake_server.started["arguments"] if word.startswith("--grpc-restricted-protocol=")]
    apis, _, word = option.partition("=")[2].partition(":")
    assert apis == CLOSED_APIS
    assert len(word) > 16_384, "no call's metadata hold so much"


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"host": "evil.example:8000", "origin": "http://evil.example:8000"},
        {"content-type": "text/plain"},
        {"content-type": "multipart/form-data; boundary=x"},
    ],
)
def test_no_page_of_a_web_site_asks_triton(server: TritonServer, headers: dict[str, str]) -> None:
    with httpx2.Client(base_url=server.http_url, trust_env=False) as client:
        response = client.post(GENERATE, content=b"{}", headers=headers)
        assert (response.status_code, response.json().keys()) == (415 if "content-type" in headers else 403, {"error"})
        curl = {"content-type": "application/x-www-form-urlencoded", "host": "localhost:8000"}
        assert client.post(GENERATE, content=b"{}", headers=curl).status_code == 200


DEEP = b"[" * 130_000


@pytest.mark.parametrize(
    ("body", "headers", "path"),
    [
        (DEEP, {}, GENERATE),
        (b'{"a": ' * 130_000, {}, GENERATE),
        (b'{"a": "\xff", "b": ' + DEEP, {}, GENERATE),
        (gzip.compress(DEEP), {"content-encoding": "gzip"}, GENERATE),
        (gzip.compress(DEEP), {"content-encoding": "br"}, GENERATE),
        (gzip.compress(bytes(65 * 2**20)), {"content-encoding": "gzip"}, GENERATE),
        (DEEP, {"inference-header-content-length": "2"}, GENERATE),
        (DEEP, {"inference-header-content-length": "130000"}, "/v2/models/echo/infer"),
        (DEEP, {"inference-header-content-length": "-1"}, "/v2/models/echo/infer"),
    ],
)
def test_what_triton_would_die_of_does_not_reach_it(
    server: TritonServer, body: bytes, headers: dict[str, str], path: str
) -> None:
    with httpx2.Client(base_url=server.http_url, trust_env=False) as client:
        assert client.post(path, content=body, headers=headers).status_code in (400, 413, 415)
        binary = {"inference-header-content-length": "2"}
        assert client.post("/v2/models/echo/infer", content=b"{}" + DEEP, headers=binary).status_code == 200


def test_depth_is_that_of_brackets_outside_of_texts() -> None:
    deep = MAX_DEPTH + 36
    assert depth(b"[" * deep + b"]" * deep) == deep
    assert depth(json.dumps({"raw_prompt": "[" * 30_000}).encode()) == 1
    assert depth(json.dumps({"raw_prompt": '[{"\\' * 1000, "b": [1]}).encode()) <= 2
    assert depth(b"[],{}" * 1000) == 1


def test_the_newest_server_at_a_port_is_found(state: Path) -> None:
    ServerAccess("http://127.0.0.1:8000", "grpc://127.0.0.1:8001").write()
    time.sleep(0.02)
    newest = ServerAccess("http://127.0.0.1:9000", "grpc://127.0.0.1:8001")
    newest.write()
    (state / "neuro-latent" / "servers" / "1.json").write_text("{")
    assert find_access("grpc://localhost:8001") == newest
    assert find_access("http://127.0.0.1:8001") is None
    assert find_access("grpc://10.0.0.1:8001") is None


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({"host": "127.0.0.1:8080"}, None),
        ({"host": "[::1]:8080"}, None),
        ({"host": "localhost", "origin": "http://localhost"}, None),
        ({"host": "prompts.example"}, None),
        ({"host": "127.0.0.1:8080", "origin": "https://a.org"}, None),
        ({"host": "127.0.0.1:8080", "origin": "https://prompts.example"}, None),
        ({"host": "127.0.0.1:8080", "origin": "https://x.org", "sec-fetch-site": "same-origin"}, None),
        ({"host": "127.0.0.1:8080", "origin": "http://127.0.0.1:3000"}, "Origin"),
        ({"host": "127.0.0.1:8080", "origin": "null"}, "Origin"),
        ({"host": "localhost.evil.org"}, "Host"),
        ({"host": ""}, "Host"),
        ({}, "Host"),
    ],
)
def test_pages_of_other_web_sites_are_known(headers: dict[str, str], found: str | None) -> None:
    foreign = foreign_page(headers, origins=["https://a.org"], hosts=["prompts.example"])
    assert (foreign and foreign[0]) == found
