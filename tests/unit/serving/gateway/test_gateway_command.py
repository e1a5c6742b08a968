"""``neuro-latent gateway`` and ``gateway-key``: what they print, their exit codes, and signals."""

import json
import signal
from pathlib import Path

import httpx2
import pytest

from neuro_latent_serving.gateway.api_keys import ApiKeys
from tests.unit.serving.gateway.conftest import Run

pytestmark = pytest.mark.slow

NOBODY = "grpc://127.0.0.1:1"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_answers_without_a_triton_and_stops_in_order(run: Run, number: int) -> None:
    process = run("gateway", "--triton", NOBODY, "--gateway-port", "0", "--json")
    assert process.stdout is not None
    facts = json.loads(process.stdout.readline())
    assert (facts["triton"], facts["metrics"]) == (NOBODY, f"{facts['gateway']}/metrics")
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


def test_metrics_have_a_port_of_their_own_where_it_is_wanted(run: Run) -> None:
    ports = ("--gateway-port", "0", "--gateway-metrics-port", "0")
    process = run("gateway", "--triton", NOBODY, *ports, "--json")
    assert process.stdout is not None
    facts = json.loads(process.stdout.readline())
    assert not facts["metrics"].startswith(facts["gateway"])
    assert httpx2.get(f"{facts['gateway']}/metrics", trust_env=False).status_code == 404
    shown = httpx2.get(facts["metrics"], trust_env=False).text
    assert 'neuro_latent_gateway_requests_total{route="other",status="404"} 1.0' in shown
    taken = run(
        "gateway", "--gateway-port", "0", "--gateway-metrics-port", facts["metrics"].split(":")[2].split("/")[0]
    )
    assert "--gateway-metrics-port 0 takes any free one" in taken.communicate(timeout=20)[1]
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 0


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
