"""Check an exported model repository before a server is started with it."""

import shlex
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from neuro_latent_core.repository import FORMAT, MANIFEST, PROJECTOR, sha256, versions
from neuro_latent_serving.errors import ServeError, UsageError
from neuro_latent_serving.repository.records import (
    AdapterRecord,
    File,
    RecordError,
    adapter_folders,
    graph_of,
    read_adapters,
)

DEFAULT_REPOSITORY = Path("repository")
GPU_ONLY = ("bf16",)
EXPORT_COMMAND = "neuro-latent export --adapter DIR --output {repository}"


class ExportedAdapter(BaseModel):
    """The adapter that was exported."""

    model_config = ConfigDict(frozen=True)

    sha256: str


class Manifest(BaseModel):
    """``manifest.json`` of an exported repository, as far as serving reads it; export may write more.

    Attributes:
        adapter: None where a T5 is served alone.
    """

    model_config = ConfigDict(frozen=True)

    format: int = 1
    artifacts: dict[str, File]
    adapter: ExportedAdapter | None
    model_version: str
    created: str
    precision: str = "fp32"
    backend: str = "python"
    device: str = "cpu"


@dataclass(frozen=True)
class FileProblem:
    """What is wrong with a file that was exported."""

    kind: Literal["missing", "changed", "outside"]
    text: str


def check_repository(repository: Path, *, verify: bool = False) -> Manifest:
    """The manifest of a repository that is complete; ``verify`` also compares the hash of every file."""
    names = model_names(repository)
    versionless = [name for name in names if not versions(repository / name)]
    if versionless:
        raise ServeError(
            f"{repository}: no version folder (such as {versionless[0]}/1/) in {', '.join(versionless)}",
            "Triton needs one in every model, also where it is empty. Export again: "
            + EXPORT_COMMAND.format(repository=repository),
        )
    manifest = read_manifest(repository)
    if manifest is None:
        raise incomplete(repository, [f"{MANIFEST} (so nothing has been exported to it)"])
    if manifest.precision in GPU_ONLY and manifest.device == "cpu":
        raise ServeError(
            f"{repository}: exported as {manifest.precision}, which is for GPUs; the CPU has no kernels for it",
            f"Export for the CPU: {EXPORT_COMMAND.format(repository=repository)} --precision int8",
        )
    missing, broken = [], []
    for name, artifact in (manifest.artifacts | adapter_artifacts(repository)).items():
        problem = file_problem(repository, name, artifact, verify=verify)
        if problem is not None and problem.kind == "missing":
            missing.append(name)
        elif problem is not None:
            broken.append(f"{name}: {problem.text}")
    if missing:
        raise incomplete(repository, missing)
    if broken:
        raise ServeError(
            "\n  ".join([f"{repository}: files are not those that were exported:", *broken]),
            f"Export again: {EXPORT_COMMAND.format(repository=repository)}",
        )
    return manifest


def file_problem(repository: Path, name: str, artifact: File, *, verify: bool) -> FileProblem | None:
    """What is wrong with a file of the manifest; None for nothing. ``verify`` also compares its hash."""
    file = repository / name
    if is_superseded(file, repository):
        return None
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        return FileProblem("outside", "not a path inside the repository")
    if not file.is_file():
        return FileProblem("missing", "it was exported, and is not there")
    if (size := file.stat().st_size) != artifact.size:
        return FileProblem("changed", f"{size} bytes, and the manifest says {artifact.size}")
    if verify and sha256(file) != artifact.sha256:
        return FileProblem("changed", "its sha256 is not the manifest's")
    return None


def newest_adapters(repository: Path) -> dict[str, AdapterRecord]:
    """The adapters that a server which starts now serves, by name.

    Raises:
        RecordError: one of them is incomplete.
        OSError: there is no projector in the repository.
    """
    projector = repository / PROJECTOR
    return read_adapters(projector / str(versions(projector)[-1]))


def adapter_artifacts(repository: Path) -> dict[str, File]:
    """The graphs of the newest set of adapters, which `neuro-latent adapters` may have written after the manifest.

    Raises:
        ServeError: the set is not complete.
    """
    projector = repository / PROJECTOR
    if not projector.is_dir():
        return {}
    try:
        adapters = newest_adapters(repository)
    except RecordError as error:
        raise incomplete(repository, [str(error)]) from None
    folders = adapter_folders(projector / str(versions(projector)[-1]))
    return {str(graph_of(folders[name]).relative_to(repository)): record.graph for name, record in adapters.items()}


def is_superseded(file: Path, repository: Path) -> bool:
    """Whether a file belongs to a version of the projector that was pruned when newer ones came."""
    projector = repository / PROJECTOR
    if not file.is_relative_to(projector):
        return False
    number = file.relative_to(projector).parts[0]
    return (
        number.isdecimal() and not (projector / number).is_dir() and int(number) < max(versions(projector), default=0)
    )


def model_names(repository: Path) -> tuple[str, ...]:
    """The folders of a repository that have a ``config.pbtxt``, sorted."""
    if not repository.is_dir():
        raise UsageError(
            f"{repository}: no such folder",
            f"Make it with: {EXPORT_COMMAND.format(repository=repository)}\n"
            "or name another with --repository REPO, or a training run with --run RUN.",
        )
    names = tuple(sorted(config.parent.name for config in repository.glob("*/config.pbtxt")))
    if not names:
        raise ServeError(
            f"{repository}: no model in it (a model is a folder with a config.pbtxt)",
            f"Make one with: {EXPORT_COMMAND.format(repository=repository)}",
        )
    if unsafe := [name for name in names if not is_shell_safe(Path(name))]:
        raise ServeError(
            f"{repository}: the name of the model {unsafe[0]!r} has characters that a shell reads, and Triton starts "
            "python models through one",
            "Rename its folder: letters, digits and . _ - are safe.",
        )
    return names


def read_manifest(repository: Path) -> Manifest | None:
    """The manifest at the root of a repository; None when there is none."""
    file = repository / MANIFEST
    if not file.is_file():
        return None
    try:
        manifest = Manifest.model_validate_json(file.read_bytes())
    except ValidationError as error:
        fields = [f"{'.'.join(map(str, problem['loc'])) or 'file'}: {problem['msg']}" for problem in error.errors()]
        raise ServeError(
            "\n  ".join([f"{file} cannot be read:", *fields[:5]]),
            f"Export again: {EXPORT_COMMAND.format(repository=repository)}",
        ) from error
    if manifest.format != FORMAT:
        raise ServeError(
            f"{file}: format {manifest.format}, and this version reads {FORMAT}",
            f"Export it again: {EXPORT_COMMAND.format(repository=repository)}",
        )
    return manifest


def incomplete(repository: Path, missing: list[str], shown: int = 10) -> ServeError:
    more = [f"and {len(missing) - shown} more"] if len(missing) > shown else []
    return ServeError(
        "\n  ".join([f"{repository} holds no complete export; missing:", *missing[:shown], *more]),
        f"Make it with: {EXPORT_COMMAND.format(repository=repository)}",
    )


def is_shell_safe(path: Path) -> bool:
    """Whether a shell, and a list of folders with colons, take a path as it is.

    Triton starts the stub of a python model through a shell, with the paths of the model and of the backend.
    """
    return shlex.quote(str(path)) == str(path) and ":" not in str(path)
