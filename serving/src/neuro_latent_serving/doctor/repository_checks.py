"""An exported model repository: its files against the manifest, and the device that it needs."""

import ctypes
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import onnxruntime as ort
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as schema

from neuro_latent_core.protocol import FEEDBACK_MODEL, STREAM_MODEL, UNARY_MODEL
from neuro_latent_core.repository import MANIFEST, PROJECTOR, versions
from neuro_latent_serving.doctor.findings import ERROR, NOTE, WARNING, Finding, Outcome
from neuro_latent_serving.errors import ServeError, UsageError
from neuro_latent_serving.repository.check import (
    EXPORT_COMMAND,
    GPU_ONLY,
    adapter_artifacts,
    file_problem,
    model_names,
    read_manifest,
)
from neuro_latent_serving.repository.records import File
from neuro_latent_serving.sessions import CUDA, CUDA_INSTALL

FIRST_WITH = {"bf16": 8.0, "fp16": 5.3}
"""The CUDA compute capability from which on a GPU has products of that precision."""


def python_models(root: Path) -> dict[str, Any]:
    """Triton's ``ModelConfig`` of each model of the python backend; Triton itself says why one cannot be read."""
    configs = dict[str, Any]()
    for file in root.glob("*/config.pbtxt"):
        with suppress(text_format.ParseError, OSError, UnicodeDecodeError):
            configs[file.parent.name] = text_format.Parse(file.read_text(encoding="utf-8"), schema.ModelConfig())
    return {name: config for name, config in configs.items() if config.backend == "python"}


def check_files(root: Path, *, verify: bool) -> Iterator[Outcome]:
    """Models, versions and files that are not those that were exported.

    Raises:
        UsageError: there is no such folder.
    """
    again, in_python = f"Export again: {EXPORT_COMMAND.format(repository=root)}", python_models(root)
    names, artifacts = tuple[str, ...](), dict[str, File]()
    try:
        names, manifest = model_names(root), read_manifest(root)
        artifacts |= manifest.artifacts if manifest else {}
        if manifest is None:
            yield Finding(ERROR, "manifest-missing", MANIFEST, "is not there: the export was not finished", again)
        if PROJECTOR in names and versions(root / PROJECTOR):
            artifacts |= adapter_artifacts(root)
    except UsageError:
        raise
    except ServeError as error:
        yield Finding(ERROR, "repository-incomplete", str(root), error.message, error.hint)
    exported = {PurePosixPath(file).parts[:2] for file in artifacts if not file.startswith(f"{PROJECTOR}/")}
    for name in names:
        number = str(max(versions(root / name), default=""))
        if not number:
            yield Finding(ERROR, "version-missing", name, f"no version folder (such as {name}/1/)", again)
        elif name in in_python and not (root / name / number / "model.py").is_file():
            what = "is not there, and Triton waits for it without a word"
            yield Finding(ERROR, "file-missing", f"{name}/{number}/model.py", what, again)
        elif name in {model for model, *_ in exported} and (name, number) not in exported:
            what, mend = f"version {number} is served, and was not exported", f"Remove {name}/{number}/."
            yield Finding(WARNING, "version-unknown", name, what, mend)
    for name in (UNARY_MODEL, STREAM_MODEL, FEEDBACK_MODEL):
        if names and name not in names:
            yield Finding(ERROR, "model-missing", name, "callers ask for it", again)
    for name, artifact in artifacts.items():
        if problem := file_problem(root, name, artifact, verify=verify):
            yield Finding(ERROR, f"file-{problem.kind}", name, problem.text, again)
    yield f"{len(artifacts)} files, compared with the manifest by {'size and hash' if verify else 'size'}"


def find_gpus() -> list[tuple[str, float]]:
    """What nvidia-smi lists, and the CUDA compute capability of each; nothing where it is not there or fails."""
    command = ["nvidia-smi", "--query-gpu=compute_cap,name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    gpus = list[tuple[str, float]]()
    for capability, _, name in (line.partition(", ") for line in done.stdout.splitlines()):
        with suppress(ValueError):
            gpus.append((name, float(capability)))
    return gpus


def check_device(root: Path) -> Iterator[Outcome]:
    """The GPU, its driver and the ONNX Runtime that the manifest asks for, and the precision on the device."""
    manifest = None
    with suppress(ServeError):  # check_files says why it cannot be read
        manifest = read_manifest(root)
    if manifest is None:
        return
    gpus, precision, export = find_gpus(), manifest.precision, EXPORT_COMMAND.format(repository=root)
    if manifest.device != "gpu" and manifest.backend != "tensorrt":
        yield "the repository needs no GPU"
        mend = f"Export for the CPU: {export} --precision int8"
        if precision in GPU_ONLY:
            yield Finding(ERROR, "precision-unsupported", precision, "the CPU has no kernels for it", mend)
        elif precision == "fp16":
            yield Finding(WARNING, "precision-slow", precision, "the CPU converts it to float32 and back", mend)
        if gpus:
            mend = f"Export for it: {export} --device gpu"
            yield Finding(NOTE, "gpu-unused", gpus[0][0], "is here, and the repository is for the CPU", mend)
        return
    if not gpus:
        mend = "Start the container with --gpus all, install the driver, or export with --device cpu."
        yield Finding(ERROR, "gpu-missing", "GPU", "nvidia-smi is not there, fails, or lists none", mend)
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        mend = "Install NVIDIA's driver; in a container it comes with --gpus all."
        yield Finding(ERROR, "gpu-driver-missing", "GPU", f"its driver cannot be loaded: {error}", mend)
    if manifest.backend != "tensorrt" and CUDA not in ort.get_available_providers():
        mend = f"Install the one for GPUs in its place: {CUDA_INSTALL}"
        yield Finding(ERROR, "cuda-provider-missing", "onnxruntime", f"has no {CUDA}, which the decoder needs", mend)
    for name, capability in gpus:
        yield f"{name}, compute capability {capability:g}"
        if capability < (least := FIRST_WITH.get(precision, 0)):
            what = f"{name} has compute capability {capability:g}; {precision} needs {least:g}"
            yield Finding(ERROR, "precision-unsupported", precision, what, "Export with --precision fp32.")
