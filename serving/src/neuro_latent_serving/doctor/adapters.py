"""The adapters: complete records, made for this repository's frozen models."""

from collections.abc import Iterator

from neuro_latent_serving.adapters.records import (
    DEFAULT,
    PROJECTOR,
    AdapterRecord,
    RecordError,
    misfits,
)
from neuro_latent_serving.doctor.catalogue import Finding, Outcome
from neuro_latent_serving.doctor.repository import CONFIG, Repository
from neuro_latent_serving.doctor.subject import Subject
from neuro_latent_serving.server.repository import Manifest, newest_adapters


def check(subject: Subject) -> Iterator[Outcome]:
    """Those of the version that a server which starts now serves."""
    repository = subject.repository
    if repository is None or PROJECTOR not in repository.models:
        return
    yield from check_setting(repository)
    try:
        records = newest_adapters(repository.root)
    except (RecordError, OSError, IndexError) as error:
        yield Finding("adapters-incomplete", PROJECTOR, str(error), repository.export_again)
        return
    yield ", ".join(f"{name}: {record.model_version}" for name, record in records.items())
    yield from check_fits(records, repository)


def check_fits(records: dict[str, AdapterRecord], repository: Repository) -> Iterator[Finding]:
    """All adapters were made for the same frozen parts, which are those of the manifest."""
    mend = "Export it for these models: neuro-latent adapters add NAME --adapter DIR."
    for name, record in records.items():
        where = f"{PROJECTOR}, adapter {name}"
        for text in misfits(record, records[DEFAULT]):
            yield Finding("adapter-misfits", where, text, mend)
    manifest = repository.manifest
    if not isinstance(manifest, Manifest):
        return
    fits = records[DEFAULT].fits
    for key, expected in frozen_parts(manifest).items():
        if key in fits and fits[key] != expected:
            what = f"{key}: made for {str(fits[key])[:12]}, and the repository has {str(expected)[:12]}"
            yield Finding("adapter-misfits", f"{PROJECTOR}, adapter {DEFAULT}", what, repository.export_again)


def frozen_parts(manifest: Manifest) -> dict[str, str | int]:
    """What the manifest says of the parts that an adapter has to fit, by the names in ``fits``."""
    return {
        **{name: backbone.sha256 for name, backbone in manifest.backbones.items()},
        **manifest.sizes,
        "precision": manifest.precision,
    }


def check_setting(repository: Repository) -> Iterator[Finding]:
    """The tokenizer refuses names of adapters where the projector knows one only."""
    tokenizer = repository.models.get("tokenizer")
    several = tokenizer and tokenizer.parameters.get("several_adapters")
    if several and several != str(not repository.has_one_adapter).lower():
        projector = "has one" if repository.has_one_adapter else "has several"
        what = f"several_adapters is {several!r}, and the projector {projector}"
        yield Finding("adapters-setting", f"tokenizer/{CONFIG}", what, repository.export_again)
