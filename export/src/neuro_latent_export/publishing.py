"""How an export takes the place of what was there: built beside it, and renamed when all is well."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neuro_latent_core.repository import MANIFEST, added_adapters, held_alone
from neuro_latent_export.errors import ExportError


@contextmanager
def published(output: Path, marker: str) -> Iterator[Path]:
    """A new folder to write to, which takes the place of ``output`` at the end, if there was no error.

    Raises:
        ExportError: ``output`` is there, is not empty, and lacks the file ``marker`` of an earlier export.
    """
    if output.exists() and (not output.is_dir() or (any(output.iterdir()) and not (output / marker).is_file())):
        kind = "exported repository" if marker == MANIFEST else "exported adapter"
        hint = "choose another --output or remove it"
        if (output / MANIFEST).is_file():
            hint = (
                f"to add an adapter to a repository: neuro-latent adapters add NAME --adapter DIR --repository {output}"
            )
        raise ExportError(f"{output} exists and is no {kind}; {hint}")
    if output.exists():
        with _not_served(output):  # told before an export, not after it
            pass
    output = Path(os.path.abspath(output))
    output.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        os.chmod(building, 0o755)
        yield building
        _publish(building, output)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _publish(building: Path, output: Path) -> None:
    """Put ``building`` in the place of ``output``; what was there goes only after that."""
    if not output.exists():
        building.rename(output)
        return
    old = building.with_name(building.name + ".old")
    with _not_served(output):
        output.rename(old)
        try:
            building.rename(output)
        except OSError:
            old.rename(output)
            raise
    if old.is_symlink():
        old.unlink()
    else:
        shutil.rmtree(old)


@contextmanager
def _not_served(repository: Path) -> Iterator[None]:
    """While this lasts no server starts with a repository.

    Raises:
        ExportError: a server runs with it.
    """
    try:
        with held_alone(repository):
            yield
    except BlockingIOError:
        raise ExportError(
            f"{repository} is being served. To change one adapter: neuro-latent adapters add NAME --adapter DIR "
            f"--repository {repository}. To export all of it, stop the server first, or choose another --output"
        ) from None


def check_nothing_is_lost(output: Path, adapter: Path | None) -> None:
    """Raise an ExportError where a new export would delete what was added to a repository."""
    if added := added_adapters(output):
        change = f"To change one adapter: neuro-latent adapters add NAME --adapter {adapter} --repository {output}. "
        raise ExportError(
            f"{output} has {added}; a new export would delete them. {change if adapter else ''}To lose them, --force"
        )
