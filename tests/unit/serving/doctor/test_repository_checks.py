"""Faults of a repository, one at a time: each is found, and nothing else is; and the device that it needs."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuro_latent_core.protocol import UNARY_MODEL
from neuro_latent_serving.adapters.adapter_store import AdapterStore
from neuro_latent_serving.doctor import repository_checks as checks
from neuro_latent_serving.doctor.findings import Outcome, examine, findings
from neuro_latent_serving.doctor.repository_checks import check_device, check_files

pytestmark = pytest.mark.slow

Fault = Callable[[Path], object]
ENCODER, RECORD = "encoder/1/model.onnx", "projector/1/adapters/default/adapter.json"


def found(outcomes: Any) -> set[str]:
    return {finding.id for finding in findings(examine("test", outcomes))}


def examined(root: Path, *, verify: bool = True) -> list[Outcome]:
    return [*examine("device", check_device(root)), *examine("files", check_files(root, verify=verify))]


def remove(name: str) -> Fault:
    def spoil(root: Path) -> None:
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def write(name: str, content: bytes) -> Fault:
    return lambda root: (root / name).write_bytes(content)


def copy(name: str, to: str) -> Fault:
    return lambda root: shutil.copytree(root / name, root / to)


def flip(name: str) -> Fault:
    """Change one bit at the end of a file."""

    def spoil(root: Path) -> None:
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    return spoil


def manifest(**fields: Any) -> Fault:
    def spoil(root: Path) -> None:
        file = root / "manifest.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))

    return spoil


def remove_all_models(root: Path) -> None:
    for config in root.glob("*/config.pbtxt"):
        shutil.rmtree(config.parent)


def rename_to_what_a_shell_reads(root: Path) -> None:
    (root / "encoder").rename(root / "encoder$(id)")


FAULTS: list[tuple[str, str, Fault]] = [
    ("repository-incomplete", "half of the manifest", write("manifest.json", b'{"artifacts"')),
    ("repository-incomplete", "a manifest of another format", manifest(format=1)),
    ("repository-incomplete file-changed", "no record of the adapter", write(RECORD, b"{}")),
    ("repository-incomplete", "a path that a shell reads", rename_to_what_a_shell_reads),
    ("repository-incomplete", "no model", remove_all_models),
    ("manifest-missing", "none", remove("manifest.json")),
    ("model-missing", "no feedback", remove("feedback")),
    ("version-missing", "of an ensemble", remove(f"{UNARY_MODEL}/1")),
    ("version-missing file-missing", "of the adapters", remove("projector/1")),
    ("version-unknown", "a second one", copy("encoder/1", "encoder/2")),
    ("file-missing", "a graph", remove(ENCODER)),
    ("file-missing", "a program", remove("t5_decoder_unary/1/model.py")),
    ("file-changed", "other bytes of the same size", flip("t5_decoder/1/step.onnx")),
    ("file-changed", "cut", write("tokenizer/1/encoder_tokenizer.json", b"{}")),
    ("file-outside", "above", manifest(artifacts={"../secret": {"sha256": "", "bytes": 0}})),
    ("precision-unsupported", "bf16", manifest(precision="bf16")),
    ("precision-slow", "fp16", manifest(precision="fp16")),
]


@pytest.mark.parametrize(("ids", "what", "fault"), FAULTS, ids=[f"{ids}: {what}" for ids, what, _ in FAULTS])
def test_a_fault_is_found_and_nothing_else(ids: str, what: str, fault: Fault, spoilt: Path) -> None:
    fault(spoilt)
    found_here = findings(examined(spoilt))
    assert {finding.id for finding in found_here} == set(ids.split())
    assert all(finding.what and finding.where and finding.mend for finding in found_here)


def test_an_export_has_no_fault(repository: Path, onnxruntime_repository: Path) -> None:
    assert found(examined(repository)) == set()
    assert found(examined(onnxruntime_repository)) == set()


def test_an_export_for_the_tensorrt_backend_wants_its_gpu_and_has_no_fault(tensorrt_repository: Path) -> None:
    assert found(examined(tensorrt_repository)) == {"gpu-missing", "gpu-driver-missing"}


def test_without_hashes_a_size_alone_is_compared(spoilt: Path) -> None:
    flip(ENCODER)(spoilt)
    assert found(examined(spoilt, verify=False)) == set()
    write(ENCODER, b"cut")(spoilt)
    assert found(examined(spoilt, verify=False)) == {"file-changed"}


def test_adapters_that_were_added_are_no_fault(spoilt: Path) -> None:
    store = AdapterStore(spoilt)
    for name in ("team", "default", "team", "default", "other"):  # so many that the first versions are gone
        store.add(name, store.newest().folder_of("default"))
    assert not (spoilt / "projector" / "1").exists()
    assert found(examined(spoilt)) == set()
    added = f"projector/{store.newest().number}/adapters/other/model.onnx"
    graph = spoilt / added
    graph.rename(graph.with_suffix(".shared"))  # a hard link of the others
    shutil.copy(graph.with_suffix(".shared"), graph)
    flip(added)(spoilt)
    assert found(examined(spoilt)) == {"file-changed"}
    remove(added)(spoilt)
    assert found(examined(spoilt)) == {"repository-incomplete"}


def test_whatever_file_is_lost_or_spoilt_no_check_fails(repository: Path, spoilt: Path) -> None:
    artifacts = json.loads((repository / "manifest.json").read_text())["artifacts"]
    for file in sorted(path for path in spoilt.rglob("*") if path.is_file() and path.suffix != ".pyc"):
        content = file.read_bytes()
        for spoil in (file.unlink, lambda file=file: file.write_bytes(b"{\x00}")):
            spoil()
            ids = found(examined(spoilt))
            assert "check-failed" not in ids
            assert ids or str(file.relative_to(spoilt)) not in artifacts, file
        file.write_bytes(content)


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A machine with a GPU, its driver and its ONNX Runtime."""

    def install(line: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\necho '{line}'\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
        monkeypatch.setattr(checks.ctypes, "CDLL", lambda library: None)
        monkeypatch.setattr(checks.ort, "get_available_providers", lambda: [checks.CUDA])

    return install


def test_a_repository_for_gpus(
    spoilt: Path, nvidia_smi: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest(device="gpu", precision="bf16")(spoilt)
    with monkeypatch.context() as without:
        without.setenv("PATH", "")
        assert found(check_device(spoilt)) == {"gpu-missing", "gpu-driver-missing", "cuda-provider-missing"}
    nvidia_smi("9.0, NVIDIA H200, 580.95.05, 143771 MiB")
    assert found(check_device(spoilt)) == set()
    nvidia_smi("7.5, Tesla T4, 580.95.05, 15360 MiB")
    assert found(check_device(spoilt)) == {"precision-unsupported"}
    nvidia_smi("12.1, NVIDIA GB10, 580.95.05, [N/A]")
    assert found(check_device(spoilt)) == set()
    manifest(backend="tensorrt", device="cpu")(spoilt)  # Triton's own TensorRT needs no provider of ours
    monkeypatch.setattr(checks.ort, "get_available_providers", list)
    assert found(check_device(spoilt)) == set()


def test_gpus_that_cannot_be_told(
    repository: Path, nvidia_smi: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi("9.0, NVIDIA H200, 580.95.05, 143771 MiB")
    assert found(check_device(repository)) == {"gpu-unused"}
    nvidia_smi("[N/A], NVIDIA H200, 580.95.05, 143771 MiB")
    assert found(check_device(repository)) == set()

    def hangs(command: list[str], **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, 30)

    monkeypatch.setattr(subprocess, "run", hangs)
    assert found(check_device(repository)) == set()
