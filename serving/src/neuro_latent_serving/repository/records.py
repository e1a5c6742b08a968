"""A version of the model ``projector``: a folder for each of its adapters, with ``model.onnx`` and ``adapter.json``.

Where one of Triton's own backends runs the projector, the version's folder is that of its only adapter, and the graph
may be TensorRT's ``model.plan``.

Imported by the model itself too, so it stays small.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from neuro_latent_core.repository import ADAPTERS, DEFAULT, FORMAT, GRAPH, PLAN, RECORD

UNPROBED = ".unprobed"
"""In the projector's folder while a change waits for its probe: the number of the newest version that was probed."""


FORMER_FITS = {"memory_prompts": 0}
"""What earlier versions recorded, with the value that adapters have now."""


class RecordError(ValueError):
    """A version of the projector is incomplete, or cannot be read."""


class File(BaseModel):
    """Hash and size of a file that export wrote."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    size: int = Field(alias="bytes")


class AdapterRecord(BaseModel):
    """``adapter.json``.

    Attributes:
        model_version: names this adapter's answers; every one of them carries it.
        weights: of the adapter that was exported.
        graph: the file beside.
        fits: what the frozen graphs were made with and an adapter could have otherwise (fingerprints of the frozen
            models, sizes, precision): it has to be the same for all adapters of a repository.
    """

    model_config = ConfigDict(frozen=True)

    format: int
    created: str
    model_version: str = Field(min_length=1, max_length=128)
    weights: File
    graph: File
    fits: dict[str, str | int]


def read_record(folder: Path) -> AdapterRecord:
    """The record of an adapter's folder.

    Raises:
        RecordError: there is none, it is of another format, or the graph is not there in its size.
    """
    file, graph = folder / RECORD, graph_of(folder)
    try:
        record = AdapterRecord.model_validate_json(file.read_bytes())
        size = graph.stat().st_size
    except FileNotFoundError as error:
        raise RecordError(f"{folder} holds no exported adapter ({Path(error.filename).name} is missing)") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise RecordError(f"{file} cannot be read: {problems}") from None
    except OSError as error:
        raise RecordError(f"{error.filename} cannot be read: {error.strerror}") from None
    if record.format != FORMAT:
        raise RecordError(f"{file}: format {record.format}, and this version reads {FORMAT}; export it again")
    if size != record.graph.size:
        raise RecordError(f"{graph}: {size} bytes, and {RECORD} says {record.graph.size}")
    return record


def graph_of(folder: Path) -> Path:
    """The graph in an adapter's folder."""
    return folder / (PLAN if (folder / PLAN).is_file() else GRAPH)


def has_one_adapter(version: Path) -> bool:
    """Whether a version's folder is that of its only adapter."""
    return (version / RECORD).is_file()


def adapter_folders(version: Path) -> dict[str, Path]:
    """The folders of a version's adapters, by name, ``default`` first.

    Raises:
        RecordError: there is no default.
    """
    if has_one_adapter(version):
        return {DEFAULT: version}
    folder = version / ADAPTERS
    names = sorted((path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else ())
    if DEFAULT not in names:
        raise RecordError(f"{folder / DEFAULT} is missing: a version of the projector needs its default adapter")
    return {name: folder / name for name in (DEFAULT, *(name for name in names if name != DEFAULT))}


def read_adapters(version: Path) -> dict[str, AdapterRecord]:
    """The adapters of a version's folder, by name, ``default`` first.

    Raises:
        RecordError: one of them is incomplete, or there is no default.
    """
    return {name: read_record(folder) for name, folder in adapter_folders(version).items()}


def misfits(record: AdapterRecord, other: AdapterRecord) -> list[str]:
    """What differs from ``other``, which fits the repository, a text each."""
    ours, theirs = ({**FORMER_FITS, **each.fits} for each in (record, other))
    return [
        f"{name}: {_shown(ours.get(name))}, and the repository has {_shown(theirs.get(name))}"
        for name in theirs | ours
        if ours.get(name) != theirs.get(name)
    ]


def _shown(value: Any) -> str:
    """Hashes of weights are cut: nobody compares 64 digits."""
    return f"weights {value[:12]}" if isinstance(value, str) and len(value) == 64 else json.dumps(value)
