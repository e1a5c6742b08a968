"""Faults of an installation, one at a time."""

import importlib.machinery
import importlib.util
import json
import os
import platform
import resource
import shutil
import socket
import socketserver
import sqlite3
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from neuro_latent_serving.doctor import device, machine, ports, server, storage, versions
from neuro_latent_serving.doctor.examine import Check, examine_group
from neuro_latent_serving.doctor.subject import Options, Subject
from neuro_latent_serving.feedback import store as feedback_store
from neuro_latent_serving.server import process
from neuro_latent_serving.server.backends import STUB
from neuro_latent_serving.server.binary import wheel_program
from neuro_latent_serving.server.errors import UsageError
from neuro_latent_serving.server.ports import FREE_PORTS
from tests.unit.serving.doctor.spoil import manifest, record

PYTHON = ".".join(platform.python_version_tuple()[:2])
NO_PORTS = Options(ports=FREE_PORTS, gateway_port=0)


def found(check: Check, options: Options = NO_PORTS) -> set[str]:
    return {finding.id for finding in examine_group("test", check, Subject(options)).findings}


@pytest.fixture
def full_installation(tmp_path: Path) -> Path:
    """The layout of NVIDIA's image."""
    root = tmp_path / "tritonserver"
    for name in ("python", "onnxruntime"):
        (root / "backends" / name).mkdir(parents=True)
        (root / "backends" / name / f"libtriton_{name}.so").touch()
    (root / "bin").mkdir()
    for program in (root / "bin" / "tritonserver", root / "backends" / "python" / STUB):
        program.touch(mode=0o755)
    (root / "TRITON_VERSION").write_text("2.71.0\n")
    return root


@pytest.fixture
def with_it(full_installation: Path) -> Options:
    return replace(NO_PORTS, tritonserver=full_installation / "bin" / "tritonserver")


def test_the_wheel_runs_and_is_for_development() -> None:
    assert found(server.check) == {"server-insecure"}
    assert found(server.check, replace(NO_PORTS, host="0.0.0.0")) == {"server-exposed"}


def test_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert found(server.check) == {"server-missing"}


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("2.71.0", set()),
        ("2.59.1", {"server-old"}),
        ("2.59.0", {"server-insecure"}),
        ("", {"server-version-unknown"}),
    ],
)
def test_the_version_of_a_full_installation(
    version: str, expected: set[str], full_installation: Path, with_it: Options
) -> None:
    (full_installation / "TRITON_VERSION").write_text(version)
    assert found(server.check, with_it) == expected


def test_the_wheel_without_a_stub_for_this_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = wheel_program()
    assert wheel is not None
    root = tmp_path / "pytriton"
    shutil.copytree(wheel.parents[1], root / "tritonserver", copy_function=os.symlink)
    (root / "tritonserver" / "python_backend_stubs" / PYTHON / STUB).unlink()
    spec = importlib.machinery.ModuleSpec("pytriton", None, is_package=True)
    spec.submodule_search_locations = [str(root)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    assert found(server.check) == {"server-insecure", "stub-missing"}


@pytest.mark.parametrize("content", [None, b"needs libpython3.99.so.1.0"])
def test_a_full_installation_without_a_stub_for_this_python(
    content: bytes | None, full_installation: Path, with_it: Options
) -> None:
    stub = full_installation / "backends" / "python" / STUB
    stub.unlink() if content is None else stub.write_bytes(content)
    assert found(server.check, with_it) == {"stub-missing"}


def test_missing_libraries(with_it: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ldd = tmp_path / "ldd"
    ldd.write_text("#!/bin/sh\necho '\tlibz.so.1 => not found'\n")
    ldd.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert found(server.check, with_it) == {"libraries-missing"}


def test_no_folder_whose_path_a_shell_takes_as_it_is(
    with_it: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "a$(id) b"
    odd.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    assert found(server.check, with_it) == set()
    monkeypatch.setattr(process, "TEMPORARY_FOLDERS", ())
    assert found(server.check, with_it) == {"temporary-folder-unsafe"}


def test_a_backend_that_the_server_lacks(
    onnxruntime_repository: Path, full_installation: Path, with_it: Options, tmp_path: Path
) -> None:
    spoilt = Path(shutil.copytree(onnxruntime_repository, tmp_path / "other"))
    assert found(server.check, replace(with_it, repository=spoilt)) == set()
    library = full_installation / "backends" / "onnxruntime" / "libtriton_onnxruntime.so"
    library.rename(library.with_name("model.py"))
    assert found(server.check, replace(with_it, repository=spoilt)) == {"backend-stand-in"}
    as_tensorrt = [spoilt / model / "config.pbtxt" for model in ("encoder", "projector", "t5_encoder")]
    for config in as_tensorrt:
        config.write_text(config.read_text().replace("onnxruntime", "tensorrt"))
    assert found(server.check, replace(with_it, repository=spoilt)) == {"backend-missing"}


def test_a_taken_port() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        taken = replace(NO_PORTS, ports=replace(FREE_PORTS, grpc=other.getsockname()[1]))
        assert found(ports.check, taken) == {"port-taken"}
    assert found(ports.check, taken) == set()
    with pytest.raises(UsageError, match="no such address"):
        found(ports.check, replace(taken, host="192.0.2.1"))


def test_the_gateway_has_a_host_of_its_own() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.2", 0))
        options = replace(NO_PORTS, gateway_port=other.getsockname()[1])
        assert found(ports.check, options) == set()
        assert found(ports.check, replace(options, gateway_host="127.0.0.2")) == {"port-taken"}


def test_a_port_with_a_program_that_speaks_no_http() -> None:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(2**16)
            self.request.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        port = listening.server_address[1]
        assert found(ports.check, replace(NO_PORTS, gateway_port=port)) == {"port-taken"}
        listening.shutdown()


@pytest.fixture
def answering() -> Iterator[int]:
    """A port on which something says that it is a ready Triton, and a ready gateway."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"ready": True}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield listening.server_port
        listening.shutdown()


def test_a_port_with_a_server_of_ours(answering: int) -> None:
    assert found(ports.check, replace(NO_PORTS, ports=replace(FREE_PORTS, http=answering))) == {"port-served"}
    assert found(ports.check, replace(NO_PORTS, gateway_port=answering)) == {"port-served"}


@pytest.mark.parametrize(("free", "expected"), [(3, "small"), (8, "tight")])
def test_shared_memory(free: int, expected: str, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = SimpleNamespace(f_bavail=free, f_frsize=2**20)
    monkeypatch.setattr(os, "statvfs", lambda path: space)
    assert found(machine.check, replace(NO_PORTS, repository=repository)) == {f"shared-memory-{expected}"}


def test_a_container_with_little_memory(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text("max\n")
    monkeypatch.setattr(machine, "CGROUP_MEMORY", (limit,))
    options = replace(NO_PORTS, repository=repository)
    assert found(machine.check, options) == set()
    limit.write_text(f"{300 * 2**20}\n")
    assert found(machine.check, options) == {"memory-low"}


def test_few_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, 4096))
    assert found(machine.check) == {"open-files-low"}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("NEURO_LATENT_THREADS", "all", "setting-invalid"),
        ("NEURO_LATENT_GUARD", "no", "setting-invalid"),
        ("NEURO_LATENT_MIN_CONFIDENCE", "1.5", "setting-invalid"),
        ("NEURO_LATENT_MIN_CONFIDENCE", "sure", "setting-invalid"),
        ("NEURO_LATENT_THREADS", "4096", "threads-exceed-cores"),
    ],
)
def test_a_setting(name: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert found(machine.check) == {expected}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///{tmp_path}/new/feedback.sqlite3", set()),
        ("sqlite:///{tmp_path}/file/feedback.sqlite3", {"feedback-unwritable"}),
        ("sqlite:///{tmp_path}/damaged", {"feedback-damaged"}),
        ("oraclesql://x", {"feedback-url"}),
    ],
)
def test_the_database_of_the_feedback(
    url: str, expected: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "damaged").write_bytes(b"no database" * 1000)
    monkeypatch.setenv("NEURO_LATENT_FEEDBACK_URL", url.format(tmp_path=tmp_path))
    assert found(storage.check) == expected


@pytest.mark.parametrize(("locked", "mend"), [(True, "End what holds it locked."), (False, "See to its disk")])
def test_a_database_that_cannot_be_read_now(
    locked: bool, mend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "feedback.sqlite3"
    monkeypatch.setenv("NEURO_LATENT_FEEDBACK_URL", f"sqlite:///{file}")
    monkeypatch.setattr(feedback_store, "TIMEOUT_S", 0.1)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("CREATE TABLE other (x)")
        if locked:
            other.execute("BEGIN EXCLUSIVE")
        else:
            Path(f"{file}-journal").mkdir()  # where SQLite looks for what it has to roll back
        (finding,) = examine_group("test", storage.check, Subject(NO_PORTS)).findings
    assert (finding.id, finding.mend[: len(mend)]) == ("feedback-unwritable", mend)


def test_feedback_below_a_folder_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, stat = tmp_path / "private", os.stat
    private.mkdir()

    def stat_for_others(path: Path, **options: bool) -> os.stat_result:
        if private in Path(path).parents:
            raise PermissionError
        return stat(path, **options)

    monkeypatch.setenv("NEURO_LATENT_FEEDBACK_URL", f"sqlite:///{private}/folder/feedback.sqlite3")
    monkeypatch.setattr(os, "stat", stat_for_others)
    monkeypatch.setattr(os, "access", lambda path, mode: path not in (private, *private.parents))
    assert found(storage.check) == {"feedback-unwritable"}


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    assert found(storage.check) == {"disk-low"}


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(versions.check) == set()
    monkeypatch.setattr(platform, "python_version", lambda: "3.8.20")
    assert found(versions.check) == {"python-unsupported"}


def test_requirements(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = ["numpy>=99", "no-such-package", 'left-out; extra == "server"', "rich"]
    monkeypatch.setattr(Distribution, "requires", needs)
    monkeypatch.setattr(versions, "WITH_NEEDS", ("neuro-latent-serving",))
    texts = [finding.what for finding in examine_group("test", versions.check, Subject(NO_PORTS)).findings]
    assert [text.split(",")[0] for text in texts] == ["needs numpy >=99", "needs no-such-package "]


@pytest.mark.parametrize(("instead", "expected"), [("onnxruntime-gpu", set()), ("other", {"requirement-unmet"})])
def test_the_onnxruntime_of_the_image_for_gpus(
    instead: str, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def distribution_there(name: str) -> Distribution:
        if name == "onnxruntime":
            raise PackageNotFoundError
        return distribution("onnxruntime" if name == instead else name)

    monkeypatch.setattr(versions, "distribution", distribution_there)
    assert found(versions.check) == expected


def test_a_repository_for_gpus(
    spoilt: Path, nvidia_smi: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(NO_PORTS, repository=spoilt)
    manifest(device="gpu", precision="bf16")(spoilt)
    record(precision="bf16")(spoilt)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(device, "loads", lambda library: False)
    monkeypatch.setattr(device.ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert found(device.check, options) == {"gpu-missing", "gpu-driver-missing", "cuda-provider-missing"}
    nvidia_smi("NVIDIA H200, 580.95.05, 9.0, 143771 MiB")
    assert found(device.check, options) == set()
    nvidia_smi("Tesla T4, 580.95.05, 7.5, 15360 MiB")
    assert found(device.check, options) == {"precision-unsupported"}
    nvidia_smi("NVIDIA GB10, 580.95.05, 12.1, [N/A]")
    assert found(device.check, options) == set()


def test_gpus_that_cannot_be_told(
    repository: Path, nvidia_smi: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(NO_PORTS, repository=repository)
    nvidia_smi("NVIDIA H200, 580.95.05, 9.0, 143771 MiB")
    assert found(device.check, options) == {"gpu-unused"}
    nvidia_smi("NVIDIA H200, 580.95.05, [N/A], 143771 MiB")
    assert found(device.check, options) == set()

    def hangs(command: list[str], **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, 30)

    monkeypatch.setattr(subprocess, "run", hangs)
    assert found(device.check, options) == set()
