"""Version folders, and every file against the manifest."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from neuro_latent_serving.adapters.records import ADAPTERS, PROJECTOR, versions
from neuro_latent_serving.adapters.store import CHANGE
from neuro_latent_serving.doctor.catalogue import Finding, Outcome
from neuro_latent_serving.doctor.repository import CONFIG, MODEL_FILES, PYTHON, Repository
from neuro_latent_serving.doctor.subject import Subject
from neuro_latent_serving.server.errors import ServeError
from neuro_latent_serving.server.repository import MANIFEST, Manifest

WARM_UP = "warmup"
"""The folder of a model with the data of its ``model_warmup``."""


def check(subject: Subject) -> Iterator[Outcome]:
    """The files of the repository."""
    repository = subject.repository
    if repository is None or repository.problem is not None:
        return
    yield from check_versions(repository)
    manifest = repository.manifest
    if manifest is None:
        yield Finding("manifest-missing", MANIFEST, "nothing has been exported to it", repository.export_again)
    elif isinstance(manifest, ServeError):
        yield Finding("manifest-unreadable", MANIFEST, manifest.message, manifest.hint)
    else:
        yield from check_backend(repository, manifest)
    yield from repository.broken_files.values()
    if isinstance(manifest, Manifest):
        yield from check_unknown(repository, manifest)
        how = "size and hash" if subject.options.verify else "size"
        yield f"{len(manifest.artifacts)} files of {manifest.model_version}, compared with the manifest by {how}"


def check_versions(repository: Repository) -> Iterator[Finding]:
    """Triton wants a version folder in every model, even an empty one, and serves the one with the largest number."""
    exported = exported_versions(repository)
    for name in repository.names:
        numbers = versions(repository.root / name)
        if not numbers:
            yield Finding("version-missing", name, f"no version folder (such as {name}/1/)", repository.export_again)
        elif name != PROJECTOR and numbers[-1] not in exported.get(name, numbers):
            what = f"version {numbers[-1]} would be served, and was not exported"
            yield Finding("version-unknown", name, what, f"Remove {name}/{numbers[-1]}/, or export again.")


def exported_versions(repository: Repository) -> dict[str, list[int]]:
    """The versions of each model that the manifest has files of."""
    manifest, found = repository.manifest, dict[str, list[int]]()
    for artifact in manifest.artifacts if isinstance(manifest, Manifest) else ():
        parts = PurePosixPath(artifact).parts
        if len(parts) > 2 and parts[1].isdecimal():
            found.setdefault(parts[0], []).append(int(parts[1]))
    return found


def check_backend(repository: Repository, manifest: Manifest) -> Iterator[Finding]:
    """The manifest's backend is that of the graphs."""
    for name in ("encoder", PROJECTOR, "t5_encoder"):
        model = repository.models.get(name)
        if model is not None and model.backend in MODEL_FILES and model.backend != manifest.backend:
            what = f"the manifest says {manifest.backend}, and {CONFIG} says {model.backend}"
            yield Finding("manifest-differs", name, what, repository.export_again)


def check_unknown(repository: Repository, manifest: Manifest) -> Iterator[Finding]:
    """Files that are neither in the manifest nor of a kind that a model has."""
    for path in sorted(repository.root.rglob("*")):
        name = path.relative_to(repository.root)
        if path.is_file() and name.as_posix() not in manifest.artifacts and not is_expected(name):
            yield Finding("file-unknown", name.as_posix(), "nothing needs it", "Remove it if it is not yours.")


def is_expected(name: Path) -> bool:
    """Whether a file is one that a repository may have beside what the manifest lists."""
    if any(part.startswith(".") or part == "__pycache__" for part in name.parts):
        return True
    if name.parts[:-1] == ():
        return name.name == MANIFEST
    model, *inner = name.parts
    if inner == [CONFIG] or inner[0] == WARM_UP:
        return True
    is_adapter = model == PROJECTOR and (inner[1] == ADAPTERS or inner[1:] == [CHANGE]) if len(inner) > 1 else False
    return is_adapter or (len(inner) == 2 and inner[0].isdecimal() and inner[1] == MODEL_FILES[PYTHON])
