"""Faults of an installation, one at a time."""

import importlib.machinery
import importlib.util
import json
import os
import platform
import shutil
import socket
import socketserver
import tempfile
import threading
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from types import SimpleNamespace

import pytest

from neuro_latent_serving.doctor import installation
from neuro_latent_serving.doctor.findings import Outcome, examine, findings
from neuro_latent_serving.doctor.repository_checks import python_models
from neuro_latent_serving.errors import UsageError
from neuro_latent_serving.launch import process
from neuro_latent_serving.launch.backends import STUB
from neuro_latent_serving.launch.binary import wheel_program
from neuro_latent_serving.web.ports import Ports

PYTHON = ".".join(platform.python_version_tuple()[:2])


def found(outcomes: Iterable[Outcome]) -> set[str]:
    return {finding.id for finding in findings(examine("test", outcomes))}


def server(program: Path | None = None, host: str = "127.0.0.1") -> set[str]:
    return found(installation.check_server(program, host))


def ports(
    host: str = "127.0.0.1", gateway_host: str = "127.0.0.1", gateway: int = 0, http: int = 0, grpc: int = 0
) -> set[str]:
    return found(installation.check_ports(host, Ports(http, grpc, 0), gateway_host, gateway))


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
def program(full_installation: Path) -> Path:
    return full_installation / "bin" / "tritonserver"


def test_the_wheel_runs_and_is_for_development() -> None:
    assert server() == {"server-insecure"}
    assert server(host="0.0.0.0") == {"server-exposed"}


def test_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert server() == {"server-missing"}


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
    version: str, expected: set[str], full_installation: Path, program: Path
) -> None:
    (full_installation / "TRITON_VERSION").write_text(version)
    assert server(program) == expected


def test_the_wheel_without_a_stub_for_this_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = wheel_program()
    assert wheel is not None
    root = tmp_path / "pytriton"
    shutil.copytree(wheel.parents[1], root / "tritonserver", copy_function=os.symlink)
    (root / "tritonserver" / "python_backend_stubs" / PYTHON / STUB).unlink()
    spec = importlib.machinery.ModuleSpec("pytriton", None, is_package=True)
    spec.submodule_search_locations = [str(root)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    assert server() == {"server-insecure", "stub-missing"}


@pytest.mark.parametrize("content", [None, b"needs libpython3.99.so.1.0"])
def test_a_full_installation_without_a_stub_for_this_python(
    content: bytes | None, full_installation: Path, program: Path
) -> None:
    stub = full_installation / "backends" / "python" / STUB
    stub.unlink() if content is None else stub.write_bytes(content)
    assert server(program) == {"stub-missing"}


def test_missing_libraries(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ldd = tmp_path / "ldd"
    ldd.write_text("#!/bin/sh\necho '\tlibz.so.1 => not found'\n")
    ldd.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert server(program) == {"libraries-missing"}


def test_no_folder_whose_path_a_shell_takes_as_it_is(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "a$(id) b"
    odd.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    assert server(program) == set()
    monkeypatch.setattr(process, "TEMPORARY_FOLDERS", ())
    assert server(program) == {"temporary-folder-unsafe"}


def test_a_taken_port() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        taken = other.getsockname()[1]
        assert ports(grpc=taken) == {"port-taken"}
    assert ports(grpc=taken) == set()
    with pytest.raises(UsageError, match="no such address"):
        ports(host="192.0.2.1", grpc=taken)


def test_the_gateway_has_a_host_of_its_own() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.2", 0))
        gateway = other.getsockname()[1]
        assert ports(gateway=gateway) == set()
        assert ports(gateway=gateway, gateway_host="127.0.0.2") == {"port-taken"}


def test_a_port_with_a_program_that_speaks_no_http() -> None:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(2**16)
            self.request.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        port = listening.server_address[1]
        assert ports(gateway=port) == {"port-taken"}
        assert ports(http=port) == {"port-taken"}
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
    assert ports(http=answering) == {"port-served"}
    assert ports(gateway=answering) == {"port-served"}
    assert ports(grpc=answering) == {"port-taken"}


@pytest.mark.parametrize(("free", "expected"), [(3, "small"), (8, "tight")])
def test_shared_memory(free: int, expected: str, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = SimpleNamespace(f_bavail=free, f_frsize=2**20)
    monkeypatch.setattr(os, "statvfs", lambda path: space)
    outcomes = installation.check_shared_memory(python_models(repository).values())
    assert found(outcomes) == {f"shared-memory-{expected}"}


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(installation.check_versions()) == set()
    monkeypatch.setattr(platform, "python_version", lambda: "3.8.20")
    assert found(installation.check_versions()) == {"python-unsupported"}


def test_requirements(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = ["numpy>=99", "no-such-package", 'left-out; extra == "server"', "rich"]
    # The class of what is found: importlib_metadata, once imported, finds distributions of its own class.
    monkeypatch.setattr(type(distribution("neuro-latent-serving")), "requires", needs)
    monkeypatch.setattr(installation, "DISTRIBUTIONS", ("neuro-latent-serving",))
    monkeypatch.setattr(installation, "WHEEL", "no-such-wheel")
    texts = [finding.what for finding in findings(installation.check_versions())]
    assert [text.split(",")[0] for text in texts] == ["needs numpy >=99", "needs no-such-package "]


@pytest.mark.parametrize(("instead", "expected"), [("onnxruntime-gpu", set()), ("other", {"requirement-unmet"})])
def test_the_onnxruntime_of_the_image_for_gpus(
    instead: str, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def distribution_there(name: str) -> Distribution:
        if name == "onnxruntime":
            raise PackageNotFoundError
        return distribution("onnxruntime" if name == instead else name)

    monkeypatch.setattr(installation, "distribution", distribution_there)
    assert found(installation.check_versions()) == expected
