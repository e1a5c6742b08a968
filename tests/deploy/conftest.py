"""What stands for the images of registries: this machine, with the wheel's tritonserver where NVIDIA's has its own."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuro_latent_serving.launch.binary import find_tritonserver
from tests.deploy import namespaces
from tests.deploy.image import Image

ROOT = Path(__file__).parents[2]
SYSTEM_PYTHON = "/usr/bin/python3"


@pytest.fixture(scope="session")
def memory() -> Iterator[Path]:
    """A folder that is not inside the root folder: layers that are laid over that may not be."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def bases(memory: Path) -> dict[str, Image]:
    """By the names that the Dockerfile has. Skips the test where no root folder can be made."""
    reason = namespaces.missing()
    version = f"Python {sys.version_info.major}.{sys.version_info.minor}."
    if not reason:
        asked = subprocess.run([SYSTEM_PYTHON, "-m", "pip", "--version"], capture_output=True, text=True)
        told = subprocess.run([SYSTEM_PYTHON, "--version"], capture_output=True, text=True).stdout
        if asked.returncode or not told.startswith(version):
            reason = f"{SYSTEM_PYTHON} is not {version}x with pip"
    if reason:
        pytest.skip(f"no substitute for an image: {reason}")
    machine = Image()
    triton = triton_layer(memory / "triton")
    environment = {**machine.environment, "LD_LIBRARY_PATH": "/opt/tritonserver/lib"}
    return {
        "python:3.12.12-slim-bookworm": machine,
        "nvcr.io/nvidia/tritonserver:26.08-py3": Image(layers=(triton,), environment=environment),
    }


def triton_layer(layer: Path) -> Path:
    """/opt/tritonserver and /opt/nvidia as the image has them, of what the wheel brings."""
    binary = find_tritonserver()
    assert binary.stubs is not None, "the tests run the wheel's server"
    wheel = binary.path.parents[1]
    server = layer / "opt" / "tritonserver"
    shutil.copytree(binary.path.parent, server / "bin")
    shutil.copytree(binary.backends, server / "backends")
    shutil.copytree(wheel.parents[1] / "nvidia_pytriton.libs", server / "lib")
    stub = binary.stubs / f"{sys.version_info.major}.{sys.version_info.minor}" / "triton_python_backend_stub"
    shutil.copy(stub, server / "backends" / "python")
    script = layer / "opt" / "nvidia" / "nvidia_entrypoint.sh"
    script.parent.mkdir(parents=True)
    script.write_text('#!/bin/sh\nexec "$@"\n')
    script.chmod(0o755)
    return layer
