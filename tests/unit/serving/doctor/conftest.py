"""Copies of the exported tiny repository that a test may spoil, and what the doctor finds in them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from neuro_latent_serving.doctor import device
from neuro_latent_serving.doctor.catalogue import Finding
from neuro_latent_serving.doctor.examine import REPOSITORY, examine_group
from neuro_latent_serving.doctor.subject import Options, Subject

TENSORRT = "11.2.1.2"

Examine = Callable[[Path], list[Finding]]


@pytest.fixture
def spoilt(repository: Path, tmp_path: Path) -> Path:
    """A copy of the exported repository."""
    return Path(shutil.copytree(repository, tmp_path / "repository"))


@pytest.fixture(scope="session")
def examine_repository() -> Examine:
    """All that is found in a repository, and in the device for it; not in the installation."""

    def examine(folder: Path, **options: bool) -> list[Finding]:
        subject = Subject(Options(repository=folder, **options))
        groups = {**REPOSITORY, "device": device.check}
        return [f for name, check in groups.items() for f in examine_group(name, check, subject).findings]

    return examine


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A machine with a GPU, its driver, its ONNX Runtime, and a TensorRT under ``site``."""
    site = tmp_path / "site"
    for package in ("tensorrt", "cuda/bindings", f"tensorrt-{TENSORRT}.dist-info"):
        (site / package).mkdir(parents=True)
        (site / package / "__init__.py").touch()
    (site / f"tensorrt-{TENSORRT}.dist-info" / "METADATA").write_text(f"Name: tensorrt\nVersion: {TENSORRT}\n")
    (site / f"tensorrt-{TENSORRT}.dist-info" / "top_level.txt").write_text("tensorrt\n")
    monkeypatch.syspath_prepend(site)

    def install(line: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\necho '{line}'\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
        monkeypatch.setattr(device, "loads", lambda library: True)
        monkeypatch.setattr(device.ort, "get_available_providers", lambda: [device.CUDA])

    return install
