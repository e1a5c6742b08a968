"""``neuro-latent serve --upstream``: prompts reach the upstream whatever becomes of Triton (one start, one restart)."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from tests.triton.test_served_restarts import Command
from tests.triton.wire import TIMEOUT
from tests.unit.serving.gateway.upstream import Upstream, running

pytestmark = pytest.mark.server

CALLERS = 4
BODY = {"model": "large", "messages": [{"role": "user", "content": "Create a function"}]}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with running(Upstream()) as server:
        yield server


@pytest.fixture
def command(repository: Path, tmp_path: Path, upstream: Upstream) -> Iterator[Command]:
    options = ["--gateway-port=0", f"--upstream={upstream.url}", "--upstream-budget=2"]
    started = Command(repository, tmp_path / "temporary", *options, "--no-guard", "--min-confidence=0")
    yield started
    started.process.terminate()
    started.process.communicate(timeout=TIMEOUT)


def test_no_request_fails_while_triton_is_killed(command: Command, upstream: Upstream) -> None:
    outcomes: list[str] = []
    changed, done = threading.Condition(), threading.Event()

    def ask() -> None:
        with httpx2.Client(base_url=command.facts["gateway"], timeout=TIMEOUT, trust_env=False) as rest:
            while not done.wait(0.01):
                answer = rest.post("/v1/chat/completions", json=BODY)
                with changed:
                    outcomes.append(answer.headers["x-neuro-latent"] if answer.is_success else str(answer.status_code))
                    changed.notify_all()

    def wait(condition: Callable[[], bool]) -> None:
        with changed:
            assert changed.wait_for(condition, TIMEOUT), outcomes[-20:]

    with ThreadPoolExecutor(CALLERS) as pool:
        asking = [pool.submit(ask) for _ in range(CALLERS)]
        try:
            wait(lambda: outcomes.count("added") >= 2 * CALLERS)
            command.server.kill()
            wait(lambda: "failed" in outcomes)
            command.ready()
            seen = len(outcomes)
            wait(lambda: "added" in outcomes[seen:])
        finally:
            done.set()
        for caller in asking:
            caller.result()
    assert set(outcomes) <= {"added", "failed", "late", "unavailable"}
    assert len(upstream.bodies) == len(outcomes)
