"""Keys, rates, and what happens when there is too much or an end."""

import concurrent.futures
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro_latent_client.testing import Failure, FakeServer
from neuro_latent_serving.errors import ServeError, UsageError
from neuro_latent_serving.gateway import middleware
from neuro_latent_serving.gateway.api_keys import ApiKeys, RateLimit, add_key
from neuro_latent_serving.gateway.config import GatewayConfig
from neuro_latent_serving.gateway.server import GatewayServer
from neuro_latent_serving.web import connection as connections
from tests.unit.serving.gateway.conftest import Start, logged
from tests.unit.serving.gateway.test_gateway_routes import FEEDBACK, PROMPT, events, problem, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_only_a_known_key_gets_in(start: Start, triton: FakeServer, keys: Path) -> None:
    ann, bob = add_key(keys, "ann"), add_key(keys, "bob")
    rest = start(api_keys=keys)
    for headers in ({}, bearer("nl_wrong"), {"authorization": "Bearer"}, {"authorization": f"Basic {ann}"}):
        for path, body in (("/optimize", PROMPT), ("/optimize/stream", PROMPT), ("/feedback", FEEDBACK)):
            response = rest.post(path, json=body, headers=headers)
            problem(response, 401)
            assert response.headers["www-authenticate"] == "Bearer"
    assert triton.requests == []
    assert rest.post("/optimize", json=PROMPT, headers=bearer(ann)).status_code == 200
    assert rest.get("/health").status_code == 200
    rest.post("/feedback", json=FEEDBACK, headers=bearer(bob))
    rest.post("/feedback", json={**FEEDBACK, "request_id": "r2", "user": "bob"}, headers=bearer(bob))
    problem(rest.post("/feedback", json={**FEEDBACK, "request_id": "r3", "user": "carl"}, headers=bearer(bob)), 403)
    assert [feedback["user"] for feedback in triton.feedback.values()] == ["bob", "bob"]


def test_keys_that_are_added_or_revoked_count_at_once(start: Start, triton: FakeServer, keys: Path, log: Path) -> None:
    def status(key: str) -> int:
        return rest.post("/optimize", json=PROMPT, headers=bearer(key)).status_code

    ann = add_key(keys, "ann")
    rest = start(api_keys=keys)
    bob = add_key(keys, "bob")
    assert [status(key) for key in (ann, bob)] == [200, 200]
    keys.write_text(f"# ann has left\n{keys.read_text().splitlines()[1]}\n")
    assert [status(key) for key in (ann, bob)] == [401, 200]
    assert [line["count"] for line in logged(log, "keys", 2)] == [2, 1]


def test_keys_of_a_secret_that_kubernetes_exchanges_count_at_once(start: Start, tmp_path: Path) -> None:
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
    old, new = add_key(tmp_path / "v1" / "api-keys", "ann"), add_key(tmp_path / "v2" / "api-keys", "ann")
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "api-keys").symlink_to("..data/api-keys")
    rest = start(api_keys=tmp_path / "api-keys")
    for expected in ([200, 401], [401, 200]):
        for key, status in zip((old, new), expected, strict=True):
            assert rest.post("/optimize", json=PROMPT, headers=bearer(key)).status_code == status
        (tmp_path / "..next").symlink_to("v2")  # as the kubelet does
        (tmp_path / "..next").replace(tmp_path / "..data")


def test_a_stream_goes_on_when_its_key_is_revoked(start: Start, triton: FakeServer, keys: Path) -> None:
    triton.delay_s = 0.5
    ann = add_key(keys, "ann")
    rest = start(api_keys=keys)
    with rest.stream("POST", "/optimize/stream", json=PROMPT, headers=bearer(ann)) as response:
        pieces = response.iter_text()
        text = next(pieces)
        keys.write_text("")
        assert rest.post("/optimize", json=PROMPT, headers=bearer(ann)).status_code == 401
        assert events(text + "".join(pieces))[-1][0] == "result"


def test_a_damaged_or_lost_file_keeps_the_keys_and_is_told_once(start: Start, keys: Path, log: Path) -> None:
    ann = add_key(keys, "ann")
    good = keys.read_bytes()
    rest = start(api_keys=keys)
    for damage in (lambda: keys.write_text(f"{good.decode()}bob SECRET\n"), keys.unlink):
        damage()
        for _ in range(2):
            assert rest.post("/optimize", json=PROMPT, headers=bearer(ann)).status_code == 200
    keys.write_bytes(good)
    assert rest.post("/optimize", json=PROMPT, headers=bearer("nl_wrong")).status_code == 401
    damaged, lost, mended = logged(log, "keys", 3)
    assert (damaged["level"], lost["level"], mended["level"]) == ("error", "error", "info")
    assert "line 2" in damaged["error"]
    assert "cannot be read" in lost["error"]
    assert "SECRET" not in log.read_text()


def test_a_proxys_key_may_name_any_user(start: Start, triton: FakeServer, keys: Path) -> None:
    site = add_key(keys, "site", proxy=True)
    rest = start(api_keys=keys)
    rest.post("/feedback", json={**FEEDBACK, "user": "carl"}, headers=bearer(site))
    rest.post("/feedback", json={**FEEDBACK, "request_id": "r2"}, headers=bearer(site))
    assert [feedback["user"] for feedback in triton.feedback.values()] == ["carl", "site"]


def test_wrong_keys_are_limited_and_right_ones_go_on(start: Start, keys: Path) -> None:
    ann = add_key(keys, "ann")
    rest = start(api_keys=keys)
    answers = [rest.post("/optimize", json=PROMPT, headers=bearer("nl_wrong")) for _ in range(60)]
    assert {answer.status_code for answer in answers[:30]} == {401}
    problem(next(answer for answer in answers if answer.status_code != 401), 429)
    assert rest.post("/optimize", json=PROMPT, headers=bearer(ann)).status_code == 200


def test_a_forwarded_address_is_believed_from_a_configured_proxy_only(start: Start) -> None:
    for proxies, expected in (((), 429), (("127.0.0.1",), 200)):
        rest = start(rate=1, trusted_proxies=proxies)
        statuses = [
            rest.post("/optimize", json=PROMPT, headers={"x-forwarded-for": f"10.0.0.{n}"}).status_code for n in (1, 2)
        ]
        assert statuses == [200, expected]
    with pytest.raises(UsageError, match="--trusted-proxy web"):
        GatewayConfig(trusted_proxies=("web",))


def raw(rest: httpx2.Client, text: bytes = b"") -> socket.socket:
    """A connection that has sent this and nothing more."""
    host, port = rest.server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(text)
    return connection


def test_the_key_is_asked_for_before_the_body(start: Start, keys: Path) -> None:
    add_key(keys, "ann")
    rest = start(api_keys=keys)
    with raw(rest, b"POST /optimize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n{") as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 401")


def test_half_open_connections_end_and_block_nobody(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST", 20)
    rest = start()
    with ExitStack() as opened:
        for _ in range(60):
            opened.enter_context(raw(rest, b"POST /optimize HTTP/1.1\r\nHost"))
        assert rest.post("/optimize", json=PROMPT).status_code == 200
    monkeypatch.setattr(connections, "HEADERS_S", 0.3)
    with raw(rest, b"POST /optimize HTTP/1.1\r\nHost") as connection, suppress(ConnectionResetError):
        assert connection.recv(100) == b""


def test_a_slow_body_is_ended(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "BODY_S", 0.3)
    rest = start()
    with raw(rest, b"POST /optimize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{") as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 408")


def test_only_the_owner_can_read_the_log(start: Start, log: Path) -> None:
    start()
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_key_is_nowhere_in_the_file(keys: Path) -> None:
    key = add_key(keys, "ann")
    assert key not in keys.read_text()
    assert keys.stat().st_mode & 0o777 == 0o600
    assert ApiKeys(keys).name_of(key) == "ann"
    with pytest.raises(UsageError, match="a key of the name ann"):
        add_key(keys, "ann")
    with pytest.raises(UsageError, match="no name for a key"):
        add_key(keys, "a b")


def test_a_key_is_added_behind_a_line_without_an_end(keys: Path) -> None:
    ann = add_key(keys, "ann")
    keys.write_text(f"# ours\n{keys.read_text().strip()}")
    keys.chmod(0o644)
    bob = add_key(keys, "bob")
    assert [ApiKeys(keys).name_of(key) for key in (ann, bob)] == ["ann", "bob"]
    assert keys.read_text().startswith("# ours\nann ")
    assert keys.stat().st_mode & 0o777 == 0o644


def test_keys_that_are_made_at_the_same_time_are_all_kept_and_no_name_is_given_twice(
    keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"user{number}" for number in range(8)]
    together, draw = threading.Barrier(16), secrets.token_urlsafe

    def draw_slowly(size: int) -> str:
        time.sleep(0.2)  # so that all are on their way at the same time
        return draw(size)

    monkeypatch.setattr(secrets, "token_urlsafe", draw_slowly)

    def make(name: str) -> str:
        together.wait()
        try:
            return add_key(keys, name)
        except UsageError:
            return ""

    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        made = [key for key in threads.map(make, names * 2) if key]
    assert sorted(ApiKeys(keys).name_of(key) or "" for key in made) == names
    assert list(keys.parent.iterdir()) == [keys]


@pytest.mark.parametrize("text", ["{}", "# ours\n{}", "\n{}"])
def test_a_byte_order_mark_in_the_file_of_keys_is_skipped(keys: Path, text: str) -> None:
    ann = add_key(keys, "ann")
    keys.write_text(text.format(keys.read_text()), encoding="utf-8-sig")
    bob = add_key(keys, "bob")
    assert [ApiKeys(keys).name_of(key) for key in (ann, bob)] == ["ann", "bob"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_a_file_of_keys_in_another_encoding_is_named_and_left_alone(keys: Path, encoding: str) -> None:
    add_key(keys, "ann")
    keys.write_text(keys.read_text(), encoding=encoding)
    before = keys.read_bytes()
    for use in (ApiKeys, partial(add_key, name="bob")):
        with pytest.raises(UsageError, match=f"the text is {encoding[:6].upper()}; save it as UTF-8"):
            use(keys)
    assert keys.read_bytes() == before


@pytest.mark.parametrize("line", ["ann", "ann secret", "ann " + "0" * 64 + " more"])
def test_a_bad_line_is_named(keys: Path, line: str) -> None:
    keys.write_text(f"# keys\n\n{line}\n")
    with pytest.raises(UsageError, match="line 3"):
        ApiKeys(keys)


def test_a_missing_file_is_wrong_usage(start: Start, keys: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        start(api_keys=keys)


def test_each_key_has_its_rate(start: Start, keys: Path) -> None:
    ann, bob = add_key(keys, "ann"), add_key(keys, "bob")
    rest = start(api_keys=keys, rate=3)
    answers = [rest.post("/optimize", json=PROMPT, headers=bearer(ann)) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    problem(answers[-1], 429)
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 20
    assert rest.post("/optimize", json=PROMPT, headers=bearer(bob)).status_code == 200


def test_without_keys_each_address_has_its_rate(start: Start) -> None:
    rest = start(rate=1)
    assert [rest.post("/optimize", json=PROMPT).status_code for _ in range(2)] == [200, 429]
    assert rest.get("/health").status_code == 200


@given(st.integers(1, 500), st.lists(st.floats(0, 30), max_size=300))
def test_no_minute_has_twice_the_rate_and_who_waits_gets_in(rate: int, pauses: list[float]) -> None:
    now = 0.0
    limit = RateLimit(rate, lambda: now)
    let_in: list[float] = []
    for pause in pauses:
        now += pause
        if wait := limit.wait_s("ann"):
            now += wait + 1e-3
            assert limit.wait_s("ann") == 0
        let_in.append(now)
    for time_s in let_in:
        assert sum(time_s <= other < time_s + 60 for other in let_in) <= 2 * rate


def test_callers_who_have_gone_are_forgotten() -> None:
    now = 0.0
    limit = RateLimit(60, lambda: now)
    for number in range(10_001):
        limit.wait_s(str(number))
    now = 120.0
    limit.wait_s("new")
    assert len(limit._paid_until) == 1


@dataclass
class Narrow(FakeServer):
    """Refuses what its queue does not take."""

    queue: int = 4
    inside: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.lock = threading.Lock()

    def receive(self, request: Any) -> Iterator[Any]:
        with self.lock:
            if self.inside >= self.queue:
                raise Failure("busy", "the queue is full")
            self.inside += 1
        return self.served(super().receive(request))

    def served(self, responses: Iterator[Any]) -> Iterator[Any]:
        try:
            yield from responses
        finally:
            with self.lock:
                self.inside -= 1


@pytest.mark.parametrize("path", ["/optimize", "/optimize/stream"])
def test_of_64_clients_over_the_queues_bound_all_are_answered(start: Start, path: str) -> None:
    rest = start(lambda: Narrow(delay_s=0.02).async_client(retries=0), rate=200)
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda _: rest.post(path, json=PROMPT), range(256)))
    statuses = {answer.status_code for answer in answers}
    assert statuses == {200, 429, 503}
    for answer in answers:
        if answer.status_code != 200:
            problem(answer, answer.status_code)
        elif path == "/optimize":
            assert answer.json()["enhanced_prompt"]
        else:
            assert events(answer.text)[-1][0] == "result"


@pytest.mark.parametrize("path", ["/optimize", "/optimize/stream"])
def test_a_stop_lets_requests_in_flight_finish(start: Start, triton: FakeServer, path: str) -> None:
    triton.delay_s = 0.4
    rest = start()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(rest.post, path, json=PROMPT)
        wait_for(lambda: triton.requests)
        rest.server.stop(lambda: False)
        assert answer.result().status_code == 200
        assert "In Python." in answer.result().text
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(rest.server.url, trust_env=False)


def test_a_stop_waits_no_longer_than_told(start: Start, triton: FakeServer) -> None:
    triton.delay_s = 20
    rest = start(drain_timeout=1)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(rest.post, "/optimize", json=PROMPT)
        wait_for(lambda: triton.requests)
        began = time.monotonic()
        rest.server.stop(lambda: False)
        assert time.monotonic() - began < 10
        assert asked.exception() or asked.result().status_code == 500
    assert triton.cancelled == {triton.requests[0].request_id}


def test_a_taken_port_is_told(start: Start) -> None:
    port = int(start().server.url.rpartition(":")[2])
    with pytest.raises(ServeError, match=f"port {port} on 127.0.0.1 is taken"):
        GatewayServer(GatewayConfig(port=port), FakeServer().async_client)
