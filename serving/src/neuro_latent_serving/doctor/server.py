"""The tritonserver: its version and what is known against it, its libraries, its backends."""

import os
import platform
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from packaging.version import InvalidVersion, Version

from neuro_latent_serving.doctor.catalogue import Finding, Outcome
from neuro_latent_serving.doctor.repository import MODEL_FILES, Model
from neuro_latent_serving.doctor.subject import Subject
from neuro_latent_serving.server.backends import STUB, find_stub, prepare_backends
from neuro_latent_serving.server.binary import TritonBinary, check_libraries, find_tritonserver
from neuro_latent_serving.server.errors import ServeError
from neuro_latent_serving.server.ports import numeric_host
from neuro_latent_serving.server.process import temporary_folder

FIXED = Version("2.59.1")
"""25.07, the first without CVE-2025-23319, -23320 and -23334."""

PRODUCTION = Version("2.71.0")
"""26.07."""

WHEEL_VERSION = Version("2.51.0")
"""24.10, in every nvidia-pytriton that this project takes."""

LOCAL = "For development, stay with --host 127.0.0.1."
IMAGE = "NVIDIA's image nvcr.io/nvidia/tritonserver, 26.07 or newer"


def check(subject: Subject) -> Iterator[Outcome]:
    """Find the server as ``neuro-latent serve`` does, and prepare it as far as that does before it starts it.

    Raises:
        UsageError: ``--tritonserver`` is no program, or ``--host`` no address.
    """
    try:
        binary = find_tritonserver(subject.options.tritonserver)
    except ServeError as error:
        if error.exit_code == 2:
            raise
        yield Finding("server-missing", "tritonserver", error.message, error.hint)
        return
    yield f"{binary.path} ({binary.source})"
    yield from check_security(server_version(binary), numeric_host(subject.options.host))
    found = find_backends(binary)
    if isinstance(found, Finding):
        yield found
        return
    yield f"backends: {', '.join(sorted(found))}"
    for model in subject.models.values():
        if model.backend in MODEL_FILES:
            yield from check_backend(model, found)


def server_version(binary: TritonBinary) -> Version | None:
    """The version of Triton's core; tritonserver itself does not tell it before it has started."""
    if binary.stubs is not None:
        return WHEEL_VERSION
    file = binary.path.parent.parent / "TRITON_VERSION"
    text = file.read_text() if file.is_file() else os.environ.get("TRITON_SERVER_VERSION", "")
    try:
        return Version(text.strip())
    except InvalidVersion:
        return None


def check_security(version: Version | None, host: str) -> Iterator[Outcome]:
    """What is known against a version that listens on an address."""
    if version is None:
        yield Finding("server-version-unknown", "tritonserver", "its version cannot be told", f"Use {IMAGE}.")
    elif version < FIXED:
        known = (
            "older than 25.07, which fixes CVE-2025-23319, CVE-2025-23320 and CVE-2025-23334 (running programs over "
            "the network)"
        )
        where, mend = f"tritonserver {version}", f"In production use {IMAGE}."
        if host.startswith("127."):
            yield Finding("server-insecure", where, f"{known}: for development on 127.0.0.1 only", mend)
        else:
            yield Finding("server-exposed", where, f"{known}, and it is to listen on {host}", f"{mend} {LOCAL}")
    elif version < PRODUCTION:
        yield Finding("server-old", f"tritonserver {version}", "older than 26.07", f"In production use {IMAGE}.")
    else:
        yield f"tritonserver {version}"


def find_backends(binary: TritonBinary) -> dict[str, bool] | Finding:
    """The backends that the server would find, and whether each is a library of its own or a program for the python
    backend; or why the python backend would not start."""
    python = ".".join(platform.python_version_tuple()[:2])
    try:
        stub = stub_of(binary, python)
    except ServeError as error:
        return Finding("stub-missing", "python backend", error.message, error.hint)
    try:
        temporary = temporary_folder()
    except ServeError as error:
        return Finding("temporary-folder-unsafe", "TMPDIR", error.message, error.hint)
    try:
        with tempfile.TemporaryDirectory(prefix="neuro-latent-doctor-", dir=temporary) as folder:
            backends = prepare_backends(binary, Path(folder), python)
            if binary.stubs is None:
                check_libraries([binary.path, stub], backends.environment)
            return backends_in(backends.folder)
    except ServeError as error:
        return Finding("libraries-missing", "tritonserver", error.message, error.hint)


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
    if built_for and built_for[1].decode() != python:
        raise ServeError(
            f"{stub} is for Python {built_for[1].decode()}, and this is Python {python}",
            f"Install the serving distribution for Python {built_for[1].decode()}.",
        )
    return stub


def backends_in(folder: Path) -> dict[str, bool]:
    """The backends in a folder, as Triton looks for them: a library, or a program for the python backend."""
    libraries = {path.name: (path / f"libtriton_{path.name}.so").is_file() for path in folder.iterdir()}
    return {name: library for name, library in libraries.items() if library or (folder / name / "model.py").is_file()}


def check_backend(model: Model, found: dict[str, bool]) -> Iterator[Finding]:
    """Whether a model's backend is there."""
    if model.backend not in found:
        what = f"needs the backend {model.backend}, and this tritonserver has {', '.join(sorted(found))}"
        mend = f"Use {IMAGE}, or export with --backend python, which needs no other."
        yield Finding("backend-missing", model.name, what, mend)
    elif not found[model.backend]:
        what = f"Python stands in for the backend {model.backend}, which this tritonserver does not have"
        yield Finding("backend-stand-in", model.name, what, f"In production use {IMAGE}.")
