"""``neuro-latent gateway`` and ``gateway-key``: what they print, their exit codes, and signals."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from neuro_latent_serving.gateway.api_keys import ApiKeys

pytestmark = pytest.mark.slow

Run = Callable[..., "subprocess.Popen[str]"]
NOBODY = "grpc://127.0.0.1:1"


@pytest.fixture
def run() -> Iterator[Run]:
    """Start a command of the gateway in a process of its own."""
    started = []

    def start(command: str, *options: str | Path) -> "subprocess.Popen[str]":
        code = f"import typer; from neuro_latent_serving.gateway.cli import {command}; typer.run({command})"
        arguments = [sys.executable, "-c", code, *map(str, options)]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_answers_without_a_triton_and_stops_in_order(run: Run, number: int) -> None:
    process = run("gateway", "--triton", NOBODY, "--gateway-port", "0", "--json")
    assert process.stdout is not None
    facts = json.loads(process.stdout.readline())
    assert facts["triton"] == NOBODY
    with httpx2.Client(base_url=facts["gateway"], trust_env=False) as rest:
        for answer in (rest.get("/health"), rest.post("/optimize", json={"raw_prompt": "x"})):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert rest.get("/").status_code == 200
    process.send_signal(number)
    _, shown = process.communicate(timeout=20)
    assert process.returncode == 0, shown
    logged = [json.loads(line) for line in shown.splitlines() if line.startswith("{")]
    assert [line["route"] for line in logged] == ["/health", "/optimize", "/"]
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--triton", "nowhere"], "--triton: url 'nowhere'"),
        (["--gateway-port", "80"], "--gateway-port 80"),
        (["--gateway-host", "::1"], "::1"),
        (["--api-keys", "/none/keys"], "--api-keys /none/keys"),
        (["--rate", "-1"], "--rate -1"),
        (["--log-file", "/none/log"], "--log-file /none/log"),
    ],
)
def test_wrong_usage_ends_with_2(run: Run, options: list[str], part: str) -> None:
    process = run("gateway", *options)
    _, shown = process.communicate(timeout=20)
    assert (process.returncode, part in shown) == (2, True), shown


def test_a_new_key_is_printed_once(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    key, _ = run("gateway_key", "ann", "--api-keys", file).communicate(timeout=20)
    assert ApiKeys(file).name_of(key.strip()) == "ann"


def test_a_file_of_keys_that_cannot_be_written_is_one_line(run: Run, tmp_path: Path) -> None:
    process = run("gateway_key", "ann", "--api-keys", tmp_path / "none" / "keys")
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "keys: cannot be written: No such file or directory" in shown
    assert "Traceback" not in shown


def test_an_open_gateway_on_a_network_is_warned_about(run: Run, tmp_path: Path) -> None:
    process = run("gateway", "--triton", NOBODY, "--gateway-port", "0", "--gateway-host", "0.0.0.0", "--json")
    assert process.stdout is not None
    process.stdout.readline()
    process.terminate()
    assert "asks for no API keys" in process.communicate(timeout=20)[1]
