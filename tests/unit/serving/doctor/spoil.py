"""Ways to spoil a repository."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

Fault = Callable[[Path], None]

ENCODER, T5_ENCODER = "encoder/1/model.onnx", "t5_encoder/1/model.onnx"
MADE_BY = '"made_by", data_type: TYPE_STRING, dims: [ 1 ]'
RECORD = "projector/1/adapters/default/adapter.json"


def edit(model: str, old: str, new: str, count: int = 1) -> Fault:
    """Replace a text in a model's configuration."""

    def spoil(repository: Path) -> None:
        file = repository / model / "config.pbtxt"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, count))

    return spoil


def drop(model: str, pattern: str) -> Fault:
    """Remove the first match of a pattern from a model's configuration."""

    def spoil(repository: Path) -> None:
        file = repository / model / "config.pbtxt"
        text, found = re.subn(pattern, "", file.read_text(), count=1, flags=re.DOTALL)
        assert found
        file.write_text(text)

    return spoil


def remove(name: str) -> Fault:
    """Remove a file or a folder."""

    def spoil(repository: Path) -> None:
        path = repository / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def write(name: str, content: bytes) -> Fault:
    """Write a file, and leave the manifest as it is."""
    return lambda repository: void((repository / name).write_bytes(content))


def copy(name: str, to: str) -> Fault:
    """Copy a folder."""
    return lambda repository: void(shutil.copytree(repository / name, repository / to))


def flip(name: str) -> Fault:
    """Change one bit at the end of a file."""

    def spoil(repository: Path) -> None:
        content = (repository / name).read_bytes()
        (repository / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    return spoil


def foreign_adapter(repository: Path) -> None:
    """Another graph as the default adapter, with a record that says so."""
    graph = str(Path(RECORD).with_name("model.onnx"))
    exported(graph, like=ENCODER)(repository)
    signed = json.loads((repository / "manifest.json").read_text())["artifacts"][graph]
    change_json(repository / RECORD, {"graph": signed})
    sign(repository, RECORD)


def several_adapters(repository: Path, value: str) -> None:
    """Set the tokenizer's parameter, whether it has one or not."""
    file = repository / "tokenizer" / "config.pbtxt"
    others = [line for line in file.read_text().splitlines() if "several_adapters" not in line]
    setting = f'parameters {{ key: "several_adapters", value {{ string_value: "{value}" }} }}'
    file.write_text("\n".join([*others, setting]))


def manifest(**fields: Any) -> Fault:
    """Change fields of the manifest."""
    return lambda repository: change_json(repository / "manifest.json", fields)


def record(**fits: Any) -> Fault:
    """Change what the default adapter fits, as if it had been exported so."""

    def spoil(repository: Path) -> None:
        file = repository / RECORD
        change_json(file, {"fits": {**json.loads(file.read_text())["fits"], **fits}})
        sign(repository, RECORD)

    return spoil


def exported(name: str, content: bytes | None = None, like: str = "") -> Fault:
    """Other content of a file (that of the file ``like``), as if it had been exported so."""

    def spoil(repository: Path) -> None:
        (repository / name).write_bytes(content if content is not None else (repository / like).read_bytes())
        sign(repository, name)

    return spoil


def both(*faults: Fault) -> Fault:
    """One after the other."""
    return lambda repository: void([fault(repository) for fault in faults])


def sign(repository: Path, name: str) -> None:
    """Write hash and size of a file into the manifest."""
    file = repository / "manifest.json"
    content = (repository / name).read_bytes()
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    change_json(file, {"artifacts": {**json.loads(file.read_text())["artifacts"], name: entry}})


def change_json(file: Path, fields: dict[str, Any]) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def void(_: object) -> None:
    """The end of a lambda."""
