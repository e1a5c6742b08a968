"""From a training run to a repository that serves it: export, when it has not been done."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from neuro_latent_serving.server.errors import ServeError, UsageError
from neuro_latent_serving.server.repository import read_manifest, sha256

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
    """Whether the repository was exported from these very weights."""
    manifest = read_manifest(repository)
    return manifest is not None and manifest.adapter.sha256 == sha256(weights)


def export_command(run: Path, repository: Path) -> list[str]:
    """``neuro-latent export`` of this very environment, which need not be the one on the PATH."""
    if importlib.util.find_spec("neuro_latent_export") is None:
        raise ServeError(
            f"{run} has to be exported before it can be served, and neuro-latent-export is not installed",
            "Install it (pip install ./export), or export elsewhere and serve the result with --repository REPO.",
        )
    program = Path(sys.executable).parent / "neuro-latent"
    start = [str(program)] if program.is_file() else [sys.executable, "-m", "neuro_latent_client"]
    return [*start, "export", "--adapter", str(run), "--output", str(repository)]


def export_run(run: Path, repository: Path, should_stop: Callable[[], bool]) -> bool:
    """Export a run, with its progress shown on stderr; False when it was stopped."""
    command = export_command(run, repository)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr) as export:
        while True:
            try:
                code = export.wait(timeout=0.1)
                break
            except subprocess.TimeoutExpired:
                if should_stop():
                    end(export)
                    return False
    if should_stop():
        return False
    if code != 0:
        raise ServeError(f"the export of {run} failed, exit code {code}", f"Its command was: {' '.join(command)}")
    if not is_exported(adapter_weights(run), repository):
        raise ServeError(
            f"the export of {run} left another adapter in {repository}",
            f"Remove {repository}, or give another one with --repository REPO.",
        )
    return True


def end(process: "subprocess.Popen[bytes]", seconds: float = 10.0) -> None:
    """Ask a process to end, and end it."""
    process.terminate()
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
