"""Start and stop, with a script in place of tritonserver."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from neuro_latent_serving.errors import StartError
from neuro_latent_serving.launch import (
    FREE_PORTS,
    ReadyModel,
    ServeError,
    ServerConfig,
    ServerEndedError,
    TritonServer,
    UsageError,
    watchdog,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def configure(fake_server) -> Callable[..., ServerConfig]:
    def make(fake: str = "", **changes: object) -> ServerConfig:
        config = ServerConfig(ports=FREE_PORTS, tritonserver=fake_server.program, ready_timeout=20, kill_after=0.2)
        return replace(config, arguments=(f"--fake={fake}",), **changes)

    return make


def nothing_is_left(fake_server, run_root: Path) -> None:
    assert not psutil.pid_exists(fake_server.started["pid"])
    assert not [region for region in Path("/dev/shm").iterdir() if region.name.startswith(shm_prefix(fake_server))]
    assert not list(run_root.iterdir())


def shm_prefix(fake_server) -> str:
    (option,) = [word for word in fake_server.started["arguments"] if "shm-region-prefix-name" in word]
    return option.rpartition("=")[2]


def test_a_server_is_ready_in_the_block_and_gone_after_it(configure, fake_server, repository, run_root) -> None:
    with TritonServer(repository, configure()) as server:
        assert server.models == (ReadyModel("echo", "1"),)
        assert server.version == "9.9.9"
        assert psutil.Process(server.pid).cmdline()[1] == str(fake_server.program)
        assert server.http_url == f"http://127.0.0.1:{server.ports.http}"
        server.check()
    nothing_is_left(fake_server, run_root)
    server.stop()
    with pytest.raises(ServeError, match="started before"):
        server.start()


def test_a_repository_is_locked_while_it_is_served(configure, repository) -> None:
    def is_free() -> bool:
        folder = os.open(repository, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(folder)
        return True

    with TritonServer(repository, configure()), TritonServer(repository, configure()):
        assert not is_free()
    assert is_free()
    with pytest.raises(ServeError):
        TritonServer(repository, configure(fake="exit")).start()
    assert is_free()


def test_options_and_environment_of_the_server(configure, fake_server, repository, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    with TritonServer(repository, configure(environment={"MINE": "1"}, drain_timeout=7)) as server:
        started = fake_server.started
        link = server.log_file.parent / "repository"
        assert link.resolve() == repository
    assert {
        f"--model-repository={link}",
        "--grpc-address=127.0.0.1",
        "--metrics-address=127.0.0.1",
        f"--http-port={server.ports.http}",
        f"--grpc-port={server.ports.grpc}",
        f"--metrics-port={server.ports.metrics}",
        "--disable-auto-complete-config",
        "--strict-readiness=false",
        "--exit-timeout-secs=7",
        "--log-verbose=0",
    } <= set(started["arguments"])
    environment = started["environment"]
    assert environment["PATH"] == f"{Path(sys.executable).parent}:/usr/bin"
    assert environment.get("VIRTUAL_ENV") == (sys.prefix if sys.prefix != sys.base_prefix else None)
    assert environment["ORT_DISABLE_TELEMETRY"] == "1"
    assert environment["MINE"] == "1"


def test_a_server_that_exits_tells_why_at_once_and_keeps_its_log(configure, repository, run_root) -> None:
    began = time.monotonic()
    with pytest.raises(ServeError) as caught, TritonServer(repository, configure("exit", ready_timeout=60)):
        pass
    assert time.monotonic() - began < 15
    assert caught.value.message == "tritonserver did not start (exit code 1):\n  model echo: no such file: model.onnx"
    (log,) = run_root.glob("*/*")
    assert str(log) in caught.value.hint
    assert "CudaDriverHelper" in log.read_text()


@pytest.mark.parametrize(("fake", "waited_for"), [("never-ready", "the server"), ("half-ready", "model echo")])
def test_a_server_that_is_never_ready(configure, fake_server, repository, tmp_path, fake: str, waited_for: str) -> None:
    config = configure(fake, ready_timeout=3, log_file=tmp_path / "log")
    with pytest.raises(ServeError, match=rf"{waited_for} was not ready within 3 seconds.*\n.*--ready-timeout"):
        TritonServer(repository, config).start()
    nothing_is_left(fake_server, tmp_path / "run-root")


def test_a_start_can_be_broken_off(configure, fake_server, repository, run_root) -> None:
    server = TritonServer(repository, configure("never-ready"))
    assert not server.start(should_stop=lambda: (run_root.parent / "started.json").exists())
    nothing_is_left(fake_server, run_root)


def test_a_server_that_does_not_drain_is_killed(configure, fake_server, repository, run_root) -> None:
    with TritonServer(repository, configure("stubborn", drain_timeout=0)):
        pass
    nothing_is_left(fake_server, run_root)


def test_force_does_not_wait(configure, fake_server, repository, run_root) -> None:
    server = TritonServer(repository, configure("stubborn", drain_timeout=60))
    server.start()
    began = time.monotonic()
    server.stop(force=lambda: time.monotonic() > began + 0.3)
    assert 0.3 < time.monotonic() - began < 10
    nothing_is_left(fake_server, run_root)


def test_a_child_in_a_session_of_its_own_does_not_stay(configure, fake_server, repository) -> None:
    with TritonServer(repository, configure("child")):
        assert psutil.pid_exists(fake_server.child)
    assert not psutil.pid_exists(fake_server.child)


@pytest.mark.parametrize("victim", ["server", "watchdog"])
def test_a_killed_server_is_reported_and_leaves_nothing(
    configure, fake_server, repository, tmp_path, victim: str
) -> None:
    server = TritonServer(repository, configure("child", log_file=tmp_path / "log"))
    server.start()
    process = psutil.Process(server.pid)
    (process if victim == "server" else process.parent()).kill()
    deadline = time.monotonic() + 10
    with pytest.raises(ServeError, match="tritonserver ended by itself"):  # noqa: PT012  # it ends at some time
        while time.monotonic() < deadline:
            server.check()
            time.sleep(0.05)
    server.stop()
    process.wait(timeout=5) if process.is_running() else None
    nothing_is_left(fake_server, tmp_path / "run-root")
    if victim == "server":
        assert not psutil.pid_exists(fake_server.child)
    else:
        os.kill(fake_server.child, signal.SIGKILL)  # a session of its own, with its watchdog killed: nobody could tell


@pytest.mark.parametrize("seconds", [0, 2.5])
def test_a_child_that_dies_ends_the_server_with_its_name_and_a_stall_is_told(
    configure, fake_server, repository, seconds: float
) -> None:
    """Triton does not start a python model's process again, and calls the model ready."""
    server = TritonServer(repository, configure("child"))
    server.start()
    time.sleep(2.5)  # the watchdog looks for new children every two seconds
    child = psutil.Process(fake_server.child)
    if seconds:
        child.suspend()
        time.sleep(seconds)
    child.kill()
    with pytest.raises(ServerEndedError) as caught:  # noqa: PT012
        for _ in range(200):
            server.check()
            time.sleep(0.05)
    assert "the process of a model has died: echo (signal 9)" in caught.value.message
    assert not psutil.pid_exists(fake_server.started["pid"])
    assert caught.value.stalled == bool(seconds)
    assert ("has stood still" in caught.value.message) == bool(seconds)


def test_old_logs_of_failures_are_removed_and_new_ones_stay(configure, repository, run_root) -> None:
    for _ in range(2):
        with pytest.raises(ServeError):
            TritonServer(repository, configure("exit")).start()
    old, new = run_root.glob("*/*.log")
    week_ago = time.time() - 8 * 24 * 3600
    os.utime(old, (week_ago, week_ago))
    with TritonServer(repository, configure()):
        pass
    assert list(run_root.glob("*/*")) == [new]


def test_wrong_settings() -> None:
    with pytest.raises(UsageError, match="--ready-timeout 0"):
        ServerConfig(ready_timeout=0)
    with pytest.raises(UsageError, match="--drain-timeout -1"):
        ServerConfig(drain_timeout=-1)
    with pytest.raises(UsageError, match="--log-file"):
        ServerConfig(log_file=Path("/no/such/folder/log"))


def test_a_full_disk_loses_a_line_of_the_log_and_fails_a_start_in_words(
    configure, repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(Path(watchdog.__file__).parent)
    code = f"import sys; sys.path.insert(0, {folder!r}); import watchdog; watchdog.say('lost')"
    with open("/dev/full", "w") as full:
        assert subprocess.run([sys.executable, "-c", code], stderr=full).returncode == 0

    def no_space(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "mkdtemp", no_space)
    with pytest.raises(StartError, match=r"cannot be started: .*No space left on device"):
        TritonServer(repository, configure()).start()
