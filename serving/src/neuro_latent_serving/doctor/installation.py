"""An installation: Python's packages, the tritonserver, shared memory and ports."""

import http.client
import json
import math
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version
from tritonclient.grpc.model_config_pb2 import DataType

from neuro_latent_core.limits import BUCKETS
from neuro_latent_core.protocol import UNARY_MODEL
from neuro_latent_serving.doctor.findings import ERROR, NOTE, WARNING, Finding, Outcome
from neuro_latent_serving.errors import ServeError, UsageError
from neuro_latent_serving.launch.backends import STUB, find_stub, prepare_backends
from neuro_latent_serving.launch.binary import TritonBinary, check_libraries, find_tritonserver
from neuro_latent_serving.launch.process import temporary_folder
from neuro_latent_serving.web.ports import Ports, bound, is_this_machine, numeric_host

PARTS = ("core", "client", "serving", "trainer", "export", "benchmarks")
DISTRIBUTIONS = tuple(f"neuro-latent-{part}" for part in PARTS)
WHEEL = "nvidia-pytriton"
SHOWN = (*DISTRIBUTIONS, "onnxruntime", "tokenizers", "numpy", "tritonclient", "grpcio")
ALTERNATIVES = {"onnxruntime": ("onnxruntime-gpu",)}
"""Packages that bring the same module; one of them is enough."""

WHEEL_VERSION = Version("2.51.0")  # 24.10, in every nvidia-pytriton that this project takes
FIXED, PRODUCTION = Version("2.59.1"), Version("2.71.0")  # 25.07, the first without the CVEs below, and 26.07
KNOWN = "older than 25.07, which fixes CVE-2025-23319, -23320 and -23334 (running programs over the network)"
IMAGE = "NVIDIA's image nvcr.io/nvidia/tritonserver, 26.07 or newer"

MIB = 2**20
SHARED_AT_START = MIB
"""Of the python backend, for each instance of a model; it grows by as much until its tensors fit."""
TYPE_BYTES = {"TYPE_FP32": 4, "TYPE_INT32": 4, "TYPE_INT64": 8, "TYPE_FP16": 2, "TYPE_BF16": 2, "TYPE_BOOL": 1}
PROBE_TIMEOUT_S = 1.0


def check_versions() -> Iterator[Outcome]:
    """What pip would check, for this project's distributions and the wheel with the tritonserver."""
    python = platform.python_version()
    yield f"Python {python}, {sys.executable}"
    yield ", ".join(f"{name} {found}" for name in SHOWN if (found := installed(name)))
    for name in filter(installed, (*DISTRIBUTIONS, WHEEL)):
        allowed = distribution(name).metadata["Requires-Python"]
        if allowed and Version(python) not in SpecifierSet(allowed):
            what = f"needs Python {allowed}, and this is {python}"
            yield Finding(ERROR, "python-unsupported", name, what, "Use such a one.")
        for need in map(Requirement, distribution(name).requires or ()):
            found, is_extra = installed(need.name), need.marker and not need.marker.evaluate({"extra": ""})
            if not is_extra and (found is None or not need.specifier.contains(found, prereleases=True)):
                state = f"{found} is installed" if found else "it is not installed"
                what, mend = f"needs {need.name} {need.specifier}, and {state}", f"{need.name}{need.specifier}"
                yield Finding(ERROR, "requirement-unmet", name, what, f'Install it with: pip install "{mend}"')


def installed(name: str) -> str | None:
    """The version of an installed package, or of one in its place."""
    for candidate in (name, *ALTERNATIVES.get(name, ())):
        with suppress(PackageNotFoundError):
            return distribution(candidate).version
    return None


def check_server(option: Path | None, host: str) -> Iterator[Outcome]:
    """Find the tritonserver as ``neuro-latent serve`` does, and prepare it as far as that does before it starts it.

    Raises:
        UsageError: ``--tritonserver`` is no program, or ``--host`` no address.
    """
    host = numeric_host(host)
    try:
        binary = find_tritonserver(option)
    except UsageError:
        raise
    except ServeError as error:
        yield Finding(ERROR, "server-missing", "tritonserver", error.message, error.hint)
        return
    yield f"{binary.path} ({binary.source})"
    yield check_security(binary, host)
    python = ".".join(platform.python_version_tuple()[:2])
    id_ = "stub-missing"
    try:
        stub = stub_of(binary, python)
        id_ = "temporary-folder-unsafe"
        with tempfile.TemporaryDirectory(prefix="neuro-latent-doctor-", dir=temporary_folder()) as folder:
            id_ = "libraries-missing"
            check_libraries([binary.path, stub], prepare_backends(binary, Path(folder), python).environment)
    except ServeError as error:
        yield Finding(ERROR, id_, str(binary.path), error.message, error.hint)


def check_security(binary: TritonBinary, host: str) -> Outcome:
    """The version of Triton's core, which tritonserver itself does not tell, and what is known against it."""
    file, version = binary.path.parent.parent / "TRITON_VERSION", WHEEL_VERSION
    if binary.stubs is None:
        text = file.read_text() if file.is_file() else os.environ.get("TRITON_SERVER_VERSION", "")
        try:
            version = Version(text.strip())
        except InvalidVersion:
            return Finding(NOTE, "server-version-unknown", "tritonserver", "its version is unknown", f"Use {IMAGE}.")
    where, mend = f"tritonserver {version}", f"In production use {IMAGE}."
    if version < FIXED and is_this_machine(host):
        return Finding(WARNING, "server-insecure", where, f"{KNOWN}: for development on 127.0.0.1 only", mend)
    if version < FIXED:
        mend = f"{mend} For development, stay with --host 127.0.0.1."
        return Finding(ERROR, "server-exposed", where, f"{KNOWN}, and it is to listen on {host}", mend)
    return Finding(NOTE, "server-old", where, "older than 26.07", mend) if version < PRODUCTION else where


def stub_of(binary: TritonBinary, python: str) -> Path:
    """The python backend's stub.

    Raises:
        ServeError: there is none, or it is one for another Python than this.
    """
    if binary.stubs is not None:
        return find_stub(binary.path, binary.stubs, python)
    stub = binary.backends / "python" / STUB
    if not stub.is_file():
        raise ServeError(f"{stub}: no such file", f"Use {IMAGE}.")
    built_for = re.search(rb"libpython(3\.\d+)\.so", stub.read_bytes())
    if built_for and (other := built_for[1].decode()) != python:
        hint = f"Install the serving distribution for Python {other}."
        raise ServeError(f"{stub} is for Python {other}, and this is Python {python}", hint)
    return stub


def check_shared_memory(python_models: Iterable[Any]) -> Iterator[Outcome]:
    """``/dev/shm``, over which Triton and the models of the python backend hand tensors to each other."""
    free, start, full = 0, 0, 0
    with suppress(FileNotFoundError):
        space = os.statvfs("/dev/shm")
        free = space.f_bavail * space.f_frsize
    for config in python_models:
        instances = sum(max(1, group.count) for group in config.instance_group) or 1
        start += instances * SHARED_AT_START
        full += instances * (SHARED_AT_START + batch_bytes(config))
    text = f"{free // MIB} MiB free; the python models take {start // MIB} MiB at their start"
    mend = f"Give the container --shm-size {max(64, -(-full // MIB))}m or more (Docker's default is 64m)."
    if free <= start:
        yield Finding(ERROR, "shared-memory-small", "/dev/shm", text, mend)
    elif free < full:
        yield Finding(WARNING, "shared-memory-tight", "/dev/shm", f"{text}, and {full // MIB} with full batches", mend)
    else:
        yield f"/dev/shm: {free // MIB} MiB free"


def batch_bytes(config: Any) -> int:
    """The numbers of a full batch of the longest prompts, inputs and outputs; texts are small beside them."""
    row = 0
    for tensor in (*config.input, *config.output):
        size = TYPE_BYTES.get(DataType.Name(tensor.data_type), 0)
        row += size * math.prod(axis if axis > 0 else BUCKETS[-1] for axis in tensor.dims)
    return max(1, int(config.max_batch_size)) * row


def check_ports(host: str, ports: Ports, gateway_host: str, gateway_port: int) -> Iterator[Outcome]:
    """Whether a server could listen on its ports, or one of this project does already. 0 is any port.

    Raises:
        UsageError: this machine has no such address.
    """
    is_ours, listeners = False, [(name, numeric_host(host), port) for name, port in asdict(ports).items()]
    for name, address, port in [*listeners, ("gateway", numeric_host(gateway_host), gateway_port)]:
        try:
            with bound(address, name, port):
                if port:
                    yield f"port {port} is free ({name})"
        except UsageError:
            raise
        except ServeError as error:
            url = f"http://{'127.0.0.1' if address == '0.0.0.0' else address}:{port}"
            if name == "http":  # tells for gRPC and metrics too
                is_ours = answer(f"{url}/v2/models/{UNARY_MODEL}/ready") is not None
            if name == "gateway":
                is_ours = answer(f"{url}/health") == {"ready": True}
            if is_ours:
                what, mend = f"{name}: a ready server of this project listens there", f"--{name}-port 0"
                yield Finding(NOTE, "port-served", str(port), what, f"Stop it to start another, or use {mend}.")
            else:
                yield Finding(ERROR, "port-taken", str(port), error.message, error.hint)


def answer(url: str) -> Any:
    """What a program, of whatever kind, says to a GET: its JSON, or "" for an empty answer; None for a failure."""
    with suppress(OSError, ValueError, http.client.HTTPException), urlopen(url, timeout=PROBE_TIMEOUT_S) as response:
        text = response.read()
        return json.loads(text) if text else ""
    return None
