"""A model repository, as export writes it and serving reads it: names of files, what is in its records, locks."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

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


@dataclass(frozen=True)
class FileEntry:
    """Hash and size of a file."""

    sha256: str
    bytes: int

    @classmethod
    def of(cls, file: Path) -> "FileEntry":
        """Read those of ``file``."""
        return cls(sha256(file), file.stat().st_size)


@dataclass(frozen=True)
class Fits:
    """All that the frozen graphs of a repository were made with and an adapter could have otherwise.

    Serving adds an adapter only where it is the same.
    """

    encoder: str
    generator: str
    encoder_width: int
    generator_width: int
    soft_prompt_tokens: int
    pooling: str
    precision: str


@dataclass(frozen=True, kw_only=True)
class _Written:
    """What the two records begin with."""

    format: int = FORMAT
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    model_version: str

    def write(self, file: Path) -> dict[str, Any]:
        """Write the record as JSON; returns what was written."""
        record = asdict(self)
        file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        return record


@dataclass(frozen=True, kw_only=True)
class AdapterRecord(_Written):
    """``adapter.json``: an adapter that was exported, and the file with its graph beside."""

    weights: FileEntry
    graph: FileEntry
    fits: Fits


@dataclass(frozen=True)
class ExportedAdapter(FileEntry):
    """The weights of the adapter that a repository was exported from, and its configuration."""

    config: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Manifest(_Written):
    """``manifest.json``: how a repository was made, and its files.

    Attributes:
        adapter: None where a T5 is served alone.
        sizes, parity, agreement, tensorrt: what export found out; nothing reads them again.
        versions: of the libraries that made it.
        artifacts: the files that were exported, by their path in the repository.
    """

    precision: str
    backend: str
    device: str
    opset: Mapping[str, int]
    adapter: ExportedAdapter | None
    backbones: Mapping[str, Mapping[str, str]]
    sizes: Mapping[str, int]
    parity: Mapping[str, Any]
    agreement: Mapping[str, Any] | None
    tensorrt: Mapping[str, Any] | None
    versions: Mapping[str, str]
    artifacts: Mapping[str, FileEntry]


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
