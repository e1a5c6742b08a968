"""``neuro-latent serve`` with the tritonserver of nvidia-pytriton: four starts, some seconds each."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import neuro_latent_serving.launch as package
from neuro_latent_core.repository import FORMAT
from neuro_latent_serving.launch import FREE_PORTS, Ports, ServeError, ServerConfig, TritonServer

pytestmark = pytest.mark.server

SHARED_MEMORY = Path("/dev/shm")

ODD = "a$(touch ran)`touch ran` b'c\"d\\e (f) &;*|é测试"
"""A name of a folder that no shell takes as it is."""

CONFIG = """
name: "echo"
backend: "python"
max_batch_size: 0
input [ { name: "seconds" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "python" data_type: TYPE_STRING dims: [ 3 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""

MODEL = """
import os, sys, time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            time.sleep(float(pb_utils.get_input_tensor_by_name(request, "seconds").as_numpy()[0]))
            facts = [sys.version, np.__file__, os.environ.get("ORT_DISABLE_TELEMETRY", "")]
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("python", np.array(facts, dtype=object))]))
        return responses
"""

ENSEMBLE = """
name: "wrapped"
platform: "ensemble"
input [ { name: "seconds" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "python" data_type: TYPE_STRING dims: [ 3 ] } ]
ensemble_scheduling { step [ { model_name: "echo" model_version: -1
  input_map { key: "seconds" value: "seconds" } output_map { key: "python" value: "python" } } ] }
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / ODD
    for model, config in {"echo": CONFIG, "wrapped": ENSEMBLE}.items():
        (folder / model / "1").mkdir(parents=True)
        (folder / model / "config.pbtxt").write_text(config)
    (folder / "echo" / "1" / "model.py").write_text(MODEL)
    manifest = {"format": FORMAT, "artifacts": {}, "adapter": {"sha256": ""}, "model_version": "v1", "created": ""}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


class Command:
    """``neuro-latent serve`` in a process of its own, called as from a shell without an active environment."""

    def __init__(self, repository: Path, temporary: Path, *options: str) -> None:
        temporary.mkdir()
        free = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "neuro_latent_serving.launch",
                "--repository",
                str(repository),
                *free,
                *options,
                "--json",
            ],
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": os.environ.get("HOME", "/"),
                "PYTHONPATH": str(Path(package.__file__).parents[2]),
                "TMPDIR": str(temporary),
                "NO_COLOR": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.ready()

    def ready(self) -> None:
        """Wait until a server is up."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], 60)[0]:
            self.process.kill()
        line = self.process.stdout.readline()
        assert line, self.process.communicate(timeout=30)
        self.facts = json.loads(line)
        self.server = psutil.Process(self.facts["pid"])
        self.family = [self.server, *self.server.children(recursive=True)]
        (option,) = [word for word in self.server.cmdline() if "shm-region-prefix-name" in word]
        self.shm_prefix = option.rpartition("=")[2]
        (option,) = [word for word in self.server.cmdline() if word.startswith("--model-repository=")]
        self.run_dir = Path(option.partition("=")[2]).parent

    def infer(self, model: str, seconds: float) -> list[str]:
        request = urllib.request.Request(
            f"{self.facts['http']}/v2/models/{model}/generate", data=json.dumps({"seconds": seconds}).encode()
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)["python"]

    def shared_memory(self) -> list[Path]:
        return list(SHARED_MEMORY.glob(f"{self.shm_prefix}*"))

    def left(self) -> list[object]:
        """What of the server is still there, up to 10 seconds later."""
        deadline = time.monotonic() + 10
        while True:
            alive = [process for process in self.family if process.is_running()]
            left = [*alive, *self.shared_memory(), *self.run_dir.parent.glob(self.run_dir.name)]
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.05)

    def result(self) -> tuple[int, str]:
        _, shown = self.process.communicate(timeout=60)
        return self.process.returncode, shown


@pytest.fixture
def serve(repository: Path, tmp_path: Path) -> Iterator[Callable[..., Command]]:
    commands: list[Command] = []

    def start(*options: str) -> Command:
        commands.append(Command(repository, tmp_path / f"temporary {ODD}", *options))
        return commands[-1]

    yield start
    for command in commands:
        command.process.terminate()
        try:
            command.process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            command.process.kill()
            command.process.communicate()


def test_serves_drains_and_leaves_nothing(serve: Callable[..., Command], repository: Path) -> None:
    command = serve()
    assert [model["name"] for model in command.facts["models"]] == ["echo", "wrapped"]
    assert len(command.family) == 2  # the server and the stub of the one python model
    assert command.shared_memory()

    version, numpy_file, telemetry_off = command.infer("wrapped", 0)
    assert not Path("ran").exists(), "a shell has run what is in the path"
    assert version == sys.version
    assert numpy_file.startswith(sys.prefix)
    assert telemetry_off == "1"
    with urllib.request.urlopen(command.facts["metrics"], timeout=10) as metrics:
        assert b"nv_inference_request_success" in metrics.read()

    taken = int(command.facts["grpc"].rpartition(":")[2])
    with pytest.raises(ServeError, match=rf"port {taken} .*--grpc-port {taken}"):
        TritonServer(repository, ServerConfig(ports=Ports(0, taken, 0))).start()

    answers: list[list[str]] = []
    request = threading.Thread(target=lambda: answers.append(command.infer("wrapped", 1.5)))
    request.start()
    time.sleep(0.5)
    command.process.send_signal(signal.SIGTERM)
    request.join(timeout=30)
    assert answers, "the request in flight was dropped"
    code, shown = command.result()
    assert code == 0, shown
    assert not command.left()


def test_a_killed_command_takes_its_busy_server_along(serve: Callable[..., Command]) -> None:
    command = serve()
    body = json.dumps({"seconds": 30}).encode()
    url = f"{command.facts['http']}/v2/models/echo/generate"
    curl = subprocess.Popen(
        [sys.executable, "-c", f"import urllib.request as u; u.urlopen({url!r}, {body!r})"], stderr=subprocess.DEVNULL
    )
    time.sleep(0.7)
    command.process.kill()
    assert not command.left()
    curl.wait(timeout=30)


def test_a_killed_server_is_started_again_at_the_same_addresses(serve: Callable[..., Command]) -> None:
    command = serve()
    before = command.facts
    command.server.kill()
    command.ready()
    assert command.facts["pid"] != before["pid"]
    assert command.facts["http"] == before["http"]
    assert command.infer("wrapped", 0)
    command.process.send_signal(signal.SIGTERM)
    code, shown = command.result()
    assert code == 0, shown
    assert "tritonserver ended by itself (signal 9)" in shown
    assert "starting it again" in shown
    assert not command.shared_memory()


def test_a_killed_server_is_reported(serve: Callable[..., Command]) -> None:
    command = serve("--restarts", "0")
    command.server.kill()
    code, shown = command.result()
    assert code == 1
    assert "tritonserver ended by itself (signal 9)" in shown
    assert not [process for process in command.family if process.is_running()]
    assert not command.shared_memory()


def test_a_model_that_fails_to_load_is_named_with_its_reason(repository: Path, tmp_path: Path) -> None:
    (repository / "echo" / "1" / "model.py").write_text("raise ValueError('the artefact is broken')")
    config = ServerConfig(ports=FREE_PORTS, log_file=tmp_path / "log", ready_timeout=60)
    began = time.monotonic()
    with pytest.raises(ServeError) as caught:
        TritonServer(repository, config).start()
    assert time.monotonic() - began < 30
    assert "model echo: ValueError: the artefact is broken" in caught.value.message
    assert "CudaDriverHelper" not in caught.value.message
    assert str(tmp_path / "log") in caught.value.hint
