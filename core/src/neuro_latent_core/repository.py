"""The layout of a model repository, as export writes it and serving reads it: names of files, their format, locks."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from neuro_latent_core.protocol import PROJECTOR_MODEL

MANIFEST: Final = "manifest.json"
FORMAT: Final = 3
"""Of the manifest and of an adapter's record; 3 since a request's options reach the decoder as one tensor."""

PROJECTOR: Final = PROJECTOR_MODEL
"""The Triton model whose versions are sets of adapters."""
ADAPTERS: Final = "adapters"
"""The folder of a version with a folder an adapter; without it the version's folder is that of its only adapter."""
DEFAULT: Final = "default"
"""The adapter of requests that name none; every version has it."""
RECORD: Final = "adapter.json"
"""Beside the graph of an adapter: what it is, and what it fits."""
GRAPH, PLAN = "model.onnx", "model.plan"
"""A model's graph; for TensorRT its engine."""


def sha256(file: Path) -> str:
    """The hash of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def versions(model: Path) -> list[int]:
    """The version numbers of a model's folder, in order; Triton serves the last. Not those that are being built."""
    return sorted(int(path.name) for path in model.iterdir() if path.is_dir() and path.name.isdecimal())


def added_adapters(repository: Path) -> str:
    """What `neuro-latent adapters` has added to a repository since its export, in words; "" for nothing."""
    projector = repository / PROJECTOR
    numbers = versions(projector) if projector.is_dir() else []
    names = {path.name for number in numbers for path in (projector / str(number) / ADAPTERS).glob("*")} - {DEFAULT}
    parts = [f"the adapters {', '.join(sorted(names))}" * bool(names)]
    if len(numbers) > 1:
        parts.append(f"{len(numbers)} versions of its adapters, to which a rollback can go")
    return " and ".join(filter(None, parts))


def hold(repository: Path) -> int:
    """A shared lock of a repository's folder, by which an export sees that it is served.

    It lasts until the descriptor that is returned is closed.
    """
    while True:
        folder = os.open(repository, os.O_RDONLY)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(folder, fcntl.LOCK_SH)
        if os.path.samestat(os.fstat(folder), os.stat(repository)):
            return folder
        os.close(folder)  # an export has replaced it meanwhile


@contextmanager
def held_alone(repository: Path) -> Iterator[None]:
    """While this lasts no server starts with a repository.

    Raises:
        BlockingIOError: a server runs with it.
    """
    folder = os.open(repository, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(folder)
