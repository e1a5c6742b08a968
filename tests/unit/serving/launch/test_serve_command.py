"""The command: exit codes, what it prints, and signals, with a script in place of tritonserver."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import neuro_latent_serving.launch as package
from neuro_latent_core.repository import sha256
from neuro_latent_serving.launch import ServeError, UsageError
from neuro_latent_serving.launch.cli import FAILED_STARTS
from neuro_latent_serving.repository import export as adapter
from neuro_latent_serving.repository.export import adapter_weights, export_command, export_run

pytestmark = pytest.mark.slow

SOURCE = Path(package.__file__).parents[2]
FREE = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0", "--gateway-port", "0"]

Serve = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def serve(fake_server, tmp_path: Path) -> Iterator[Serve]:
    """Start ``neuro-latent serve`` in a process of its own, in tmp_path."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str | Path, fake: str = "") -> "subprocess.Popen[str]":
        if fake:  # the command has no option for this
            text = fake_server.program.read_text()
            fake_server.program.write_text(text.replace('fake = options.get("fake", "")', f"fake = {fake!r}"))
        command = [sys.executable, "-m", "neuro_latent_serving.launch", "--tritonserver", str(fake_server.program)]
        process = subprocess.Popen(
            [*command, *map(str, options)],
            env={**os.environ, "PYTHONPATH": str(SOURCE), "NO_COLOR": "1"},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ready_line(process: "subprocess.Popen[str]") -> dict:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 30)[0], "not ready within 30 seconds"
    return json.loads(process.stdout.readline())


def result(process: "subprocess.Popen[str]", timeout: float = 30) -> tuple[int, str]:
    _, shown = process.communicate(timeout=timeout)
    return process.returncode, shown


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ready_line_and_an_orderly_stop(serve: Serve, repository: Path, run_root: Path, number: int) -> None:
    process = serve("--repository", repository, *FREE, "--json")
    facts = ready_line(process)
    assert facts["server"] == "triton"
    assert facts["models"] == [{"name": "echo", "version": "1"}]
    assert facts["http"].startswith("http://127.0.0.1:")
    assert facts["grpc"].startswith("grpc://127.0.0.1:")
    process.send_signal(number)
    code, shown = result(process)
    assert code == 0, shown
    assert "ready in" in shown
    assert "Ctrl-C stops it" in shown
    assert not psutil.pid_exists(facts["pid"])
    assert not list(run_root.iterdir())


def test_the_gateway_is_there_unless_told(serve: Serve, repository: Path) -> None:
    facts = ready_line(serve("--repository", repository, *FREE, "--json"))
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{facts['gateway']}/health")
    with caught.value as answer:  # the script in place of tritonserver has no models
        assert (answer.code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert ready_line(serve("--repository", repository, *FREE, "--json", "--no-gateway"))["gateway"] is None


@pytest.mark.parametrize(
    ("options", "guard", "least"),
    [
        ([], None, None),
        (["--no-guard", "--min-confidence", "0.5"], "off", "0.5"),
        (["--min-confidence", "0"], None, "0.0"),
    ],
)
def test_guard_and_gate_reach_the_models(
    serve: Serve, repository: Path, fake_server, options: list[str], guard: str | None, least: str | None
) -> None:
    ready_line(serve("--repository", repository, *FREE, "--json", "--no-gateway", *options))
    environment = fake_server.started["environment"]
    assert environment.get("NEURO_LATENT_GUARD") == guard
    assert environment.get("NEURO_LATENT_MIN_CONFIDENCE") == least


def test_a_server_that_ends_too_often_is_waited_for_and_not_given_up(serve: Serve, repository: Path) -> None:
    process = serve("--repository", repository, *FREE, "--json", "--restarts", "1")
    for _ in range(2):
        os.kill(ready_line(process)["pid"], signal.SIGKILL)
    assert process.stderr is not None
    shown = ""
    while "ended too often in the last minute" not in shown:
        line = process.stderr.readline()
        assert line, shown
        shown += line
    assert shown.count("starting it again") == 2
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert result(process)[0] == 0


@pytest.mark.parametrize("mended", [True, False])
def test_a_server_that_was_ready_is_started_again_although_a_start_fails(
    serve: Serve, repository: Path, fake_server, mended: bool
) -> None:
    process = serve("--repository", repository, *FREE, "--json", "--restarts", "60")
    pid = ready_line(process)["pid"]
    fake_server.fails.touch()
    os.kill(pid, signal.SIGKILL)
    assert process.stderr is not None
    shown = ""
    while "tritonserver did not start (exit code 1)" not in shown:
        line = process.stderr.readline()
        assert line, shown
        shown += line
    if mended:
        fake_server.fails.unlink()
        assert ready_line(process)["pid"] != pid
        process.send_signal(signal.SIGTERM)
    code, rest = result(process)
    assert code == (0 if mended else 1), shown + rest
    assert mended or (shown + rest).count("did not start") == FAILED_STARTS + 1


def test_a_second_signal_stops_at_once(serve: Serve, repository: Path) -> None:
    process = serve("--repository", repository, *FREE, "--json", fake="stubborn")
    facts = ready_line(process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    code, shown = result(process, timeout=10)  # the drain alone would take 35 seconds
    assert code == 0, shown
    assert not psutil.pid_exists(facts["pid"])


def test_verbose_shows_the_log_of_the_server(serve: Serve, repository: Path) -> None:
    process = serve("--repository", repository, *FREE, "--json", "--verbose", "--drain-timeout", "0", fake="stubborn")
    ready_line(process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    assert "I am stubborn" in result(process)[1]


def test_nothing_of_the_server_outlives_a_killed_command(serve: Serve, fake_server, repository, run_root) -> None:
    process = serve("--repository", repository, *FREE, "--json", fake="child")
    pids = [ready_line(process)["pid"], fake_server.child]
    process.kill()
    deadline = time.monotonic() + 10
    while (any(map(psutil.pid_exists, pids)) or list(run_root.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(psutil.pid_exists, pids))
    assert not list(run_root.iterdir())
    prefix = next(word for word in fake_server.started["arguments"] if "shm-region" in word).rpartition("=")[2]
    assert not list(Path("/dev/shm").glob(f"{prefix}*"))


def test_what_a_killed_group_has_left_goes_with_the_next_start(
    serve: Serve, fake_server, repository: Path, run_root: Path
) -> None:
    def left() -> list[Path]:
        return [*run_root.iterdir(), *Path("/dev/shm").glob(f"{prefix}*")]

    process = serve("--repository", repository, *FREE, "--json", "--no-gateway", fake="child")
    server = psutil.Process(ready_line(process)["pid"])
    prefix = next(word for word in fake_server.started["arguments"] if "shm-region" in word).rpartition("=")[2]
    process.send_signal(signal.SIGSTOP)  # so that each dies before it can clean up for another
    for member in (server.parent(), server, psutil.Process(fake_server.child), psutil.Process(process.pid)):
        member.kill()
    process.communicate(timeout=10)
    assert len(left()) >= 2, "a run folder and shared memory"
    kept = set(left())
    other = serve("--repository", repository, *FREE, "--json", "--no-gateway")
    ready_line(other)
    assert not kept & set(left())
    third = serve("--repository", repository, *FREE, "--json", "--no-gateway")
    ready_line(third)
    assert len(list(run_root.iterdir())) == 2, "those of servers that run stay"


def test_a_stop_takes_no_longer_than_its_grace(serve: Serve, repository: Path) -> None:
    drain, kill_after = 8, 5
    options = ("--drain-timeout", drain)
    process = serve("--repository", repository, *FREE, "--json", *options, fake="stubborn")
    host, port = ready_line(process)["gateway"].removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as half:
        half.sendall(
            b"POST /optimize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        )
        time.sleep(0.5)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code, shown = result(process)
    assert code == 0, shown
    assert time.monotonic() - began < drain + kill_after + drain, "one after the other they take twice the drain"


def test_failures_are_told_and_end_with_1(serve: Serve, repository: Path) -> None:
    code, shown = result(serve("--repository", repository, *FREE, fake="exit"))
    assert code == 1
    assert "error: tritonserver did not start" in shown
    assert "model echo: no such file: model.onnx" in shown
    (repository / "echo/1/model.onnx").unlink()
    code, shown = result(serve("--repository", repository, *FREE))
    assert code == 1
    assert "neuro-latent export" in shown


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--http-port", "80"], "--http-port 80"),
        (["--http-port", "abc"], "--http-port"),
        (["--gateway-port", "80"], "--gateway-port 80"),
        (["--api-keys", "none"], "--api-keys none"),
        (["--host", "::1"], "--host ::1"),
        (["--ready-timeout", "0"], "--ready-timeout 0"),
        (["--min-confidence", "1.5"], "--min-confidence"),
        (["--run", "none"], "no trained adapter"),
        ([], "repository: no such folder"),  # the default
    ],
)
def test_wrong_usage_ends_with_2(serve: Serve, options: list[str], part: str) -> None:
    code, shown = result(serve(*options))
    assert code == 2
    assert part in shown


@pytest.mark.parametrize("from_wheel", [True, False])
def test_on_a_network_the_server_is_closed_and_that_of_the_wheel_warned_about(
    serve: Serve, repository: Path, fake_server, from_wheel: bool
) -> None:
    if from_wheel:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stub = fake_server.program.parents[1] / "python_backend_stubs" / version / "triton_python_backend_stub"
        stub.parent.mkdir(parents=True)
        (fake_server.program.parents[1] / "backends" / "python").mkdir()
        stub.touch()
    process = serve("--repository", repository, *FREE, "--json", "--host", "0.0.0.0")
    assert ready_line(process)["http"].startswith("http://127.0.0.1:")
    arguments = fake_server.started["arguments"]
    process.terminate()
    code, shown = result(process)
    assert code == 0
    assert ("warning: listening on 0.0.0.0" in shown) == from_wheel
    assert {"--model-control-mode=none", "--strict-readiness=true"} <= set(arguments)
    assert [word for word in arguments if word.startswith("--grpc-restricted-protocol=model-repository,shared-memory,")]
    assert [word for word in arguments if word.startswith("--http-address=unix:")]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


def test_a_run_whose_adapter_is_in_the_repository_is_served_as_it_is(serve: Serve, run: Path, repository: Path) -> None:
    file = repository / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["adapter"]["sha256"] = sha256(adapter_weights(run))
    file.write_text(json.dumps(manifest))
    repository.rename(run / "repository")
    process = serve("--run", run, *FREE, "--json")
    ready_line(process)
    process.terminate()
    code, shown = result(process)
    assert (code, "exporting" in shown) == (0, False)


def test_a_run_without_an_adapter_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no trained adapter"):
        adapter_weights(tmp_path)


def test_export_is_called_in_this_environment(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter.importlib.util, "find_spec", lambda name: object())
    command = export_command(run, run / "repository")
    assert command[-5:] == ["export", "--adapter", str(run), "--output", str(run / "repository")]
    assert Path(command[0]).parent == Path(sys.executable).parent


def test_export_is_needed_and_not_installed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ServeError, match="pip install neuro-latent-export"):
        export_run(run, run / "repository", lambda: False)


def fake_export(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(adapter, "export_command", lambda *_: [sys.executable, "-c", program])
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)  # a real file, for the child


def test_a_run_is_exported(run: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = sha256(adapter_weights(run))
    file = repository / "manifest.json"
    fake_export(
        monkeypatch,
        f"from pathlib import Path; f = Path({str(file)!r}); "
        f"f.write_text(f.read_text().replace('of another adapter', {digest!r}))",
    )
    assert export_run(run, repository, lambda: False)


def test_an_export_that_fails_or_leaves_another_adapter(run: Path, repository: Path, monkeypatch) -> None:
    fake_export(monkeypatch, "raise SystemExit(3)")
    with pytest.raises(ServeError, match="failed, exit code 3"):
        export_run(run, repository, lambda: False)
    fake_export(monkeypatch, "pass")
    with pytest.raises(ServeError, match="left another adapter"):
        export_run(run, repository, lambda: False)


def test_an_export_can_be_broken_off(run: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_export(monkeypatch, "import time; time.sleep(60)")
    began = time.monotonic()
    assert not export_run(run, repository, lambda: True)
    assert time.monotonic() - began < 15
