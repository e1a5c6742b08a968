"""From a training run to a repository that serves it: export, when it has not been done."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from neuro_latent_core.command_line import program
from neuro_latent_core.repository import DEFAULT, added_adapters, sha256
from neuro_latent_serving.errors import ServeError, UsageError
from neuro_latent_serving.repository.check import newest_adapters, read_manifest
from neuro_latent_serving.repository.records import RecordError

WEIGHTS = "adapter_model.safetensors"


def adapter_weights(run: Path) -> Path:
    """The weights of a run folder (``RUN/adapter/``)."""
    weights = run / "adapter" / WEIGHTS
    if not weights.is_file():
        raise UsageError(
            f"--run {run}: no trained adapter in it ({weights} is missing)",
            "Make one with: neuro-latent train --data-path FILE --output-dir RUN",
        )
    return weights


def is_exported(weights: Path, repository: Path) -> bool:
    """Whether the repository was exported from these very weights, or has them as its default adapter by now.

    Not only the latter: a run's repository to which a better default was added since is still the run's.
    """
    manifest = read_manifest(repository)
    if manifest is None:
        return False
    hashes = {manifest.adapter.sha256} if manifest.adapter else set[str]()
    with suppress(RecordError, OSError):
        hashes.add(newest_adapters(repository)[DEFAULT].weights.sha256)
    return sha256(weights) in hashes


def refuse_to_drop_adapters(run: Path, repository: Path) -> None:
    """Raise a ServeError where an export would replace a repository to which adapters were added."""
    if added := added_adapters(repository):
        raise ServeError(
            f"{repository} was exported from other weights than {run} has now, and has {added}, which a new export "
            "would drop",
            f"Replace its default adapter only: neuro-latent adapters add {DEFAULT} --adapter {run} --repository "
            f"{repository} --offline\nor serve the run from another --repository REPO.",
        )


def export_command(adapter: Path, output: Path, *options: str) -> list[str]:
    """``neuro-latent export`` of this very environment, which need not be the one on the PATH."""
    if importlib.util.find_spec("neuro_latent_export") is None:
        raise ServeError(
            f"{adapter} has to be exported before it can be served, and neuro-latent-export is not installed",
            "Install it (pip install neuro-latent-export), or export elsewhere and use the result.",
        )
    return [*program(), "export", "--adapter", str(adapter), "--output", str(output), *options]


def export_run(run: Path, repository: Path, should_stop: Callable[[], bool]) -> bool:
    """Export a run, with its progress shown on stderr; False when it was stopped."""
    if not run_export(export_command(run, repository), should_stop):
        return False
    if not is_exported(adapter_weights(run), repository):
        raise ServeError(
            f"the export of {run} left another adapter in {repository}",
            f"Remove {repository}, or give another one with --repository REPO.",
        )
    return True


def run_export(command: list[str], should_stop: Callable[[], bool]) -> bool:
    """Run an export to its end; False when it was stopped.

    Raises:
        ServeError: it has failed.
    """
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr) as export:
        while True:
            try:
                code = export.wait(timeout=0.1)
                break
            except subprocess.TimeoutExpired:
                if should_stop():
                    export.terminate()
                    with suppress(subprocess.TimeoutExpired):
                        export.wait(timeout=10)
                    export.kill()
                    return False
    if should_stop():
        return False
    if code != 0:
        raise ServeError(f"the export failed, exit code {code}", f"Its command was: {' '.join(command)}")
    return True
