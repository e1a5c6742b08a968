"""The versions of ``projector`` on disk.

``projector/N/`` never changes once it is there. Every change writes ``projector/N+1`` whole: built beside under a name
that Triton does not read, brought to the disk, published by one rename. Adapters that stay are hard links. So whatever
ends us, and whenever, the newest version is complete, and a server that starts finds it.
"""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from neuro_latent_core.errors import InvalidInput
from neuro_latent_core.repository import ADAPTERS, DEFAULT, GRAPH, PROJECTOR, RECORD, sha256, versions
from neuro_latent_serving.checks import check_adapter
from neuro_latent_serving.errors import ServeError, UsageError
from neuro_latent_serving.repository.check import model_names
from neuro_latent_serving.repository.records import (
    UNPROBED,
    AdapterRecord,
    RecordError,
    has_one_adapter,
    misfits,
    read_adapters,
    read_record,
)
from neuro_latent_serving.sessions import open_session

CHANGE = "change.json"
MODEL = "model.py"
KEPT = 3
"""How many changes can be taken back one after the other; what nothing goes back to any more is removed."""

BUILDING = ".building-"
LOCK = ".lock"
LOOK_S = 0.1
"""Between two looks at a lock that another process holds."""


class Change(BaseModel):
    """``change.json``: how a version came to be. A version that export wrote has none.

    Attributes:
        adapter: the one that was added, replaced, removed, or was so by the change that was taken back.
        previous: the version that this one took the place of.
        restores: the version whose adapters these are, after a rollback.
        before: the version with the adapters from before, to which a rollback goes; None where there is none.
        before_adapter: the adapter that such a rollback changes.
    """

    model_config = ConfigDict(frozen=True)

    action: Literal["add", "remove", "rollback"]
    adapter: str
    created: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    previous: int
    restores: int | None = None
    before: int | None
    before_adapter: str


class StopRequestedError(Exception):
    """Somebody who waited was asked to stop."""


@dataclass(frozen=True)
class Version:
    """A set of adapters."""

    number: int
    folder: Path
    adapters: dict[str, AdapterRecord]
    change: Change | None

    @property
    def model_versions(self) -> dict[str, str]:
        """The version of each adapter, by name."""
        return {name: record.model_version for name, record in self.adapters.items()}

    def folder_of(self, name: str) -> Path:
        """The folder of one adapter."""
        return self.folder / ADAPTERS / name


class AdapterStore:
    """The adapters of a model repository.

    Args:
        should_stop: asked while another process's change is waited for.

    Raises:
        UsageError: the folder does not exist.
        ServeError: it is no exported repository, one from before there were several adapters, or one whose projector is
            run by one of Triton's own backends.
    """

    def __init__(self, repository: Path, should_stop: Callable[[], bool] = lambda: False) -> None:
        if PROJECTOR not in model_names(repository):
            raise ServeError(
                f"{repository}: no model {PROJECTOR} in it, so it has no adapters: its T5 writes by itself "
                "(export --no-adapter)",
                "For adapters, export one: neuro-latent export --adapter DIR --output ANOTHER_REPO",
            )
        self.repository = repository
        self._locked = False
        self._should_stop = should_stop
        self._folder = repository.absolute() / PROJECTOR
        if any(has_one_adapter(self._folder / str(number)) for number in self.numbers()):
            raise ServeError(
                f"{repository} has one adapter, for its projector is a graph that Triton runs itself "
                "(it was exported with --backend onnxruntime or tensorrt)",
                f"To serve another, export it: neuro-latent export --adapter DIR --output {repository} --backend …\n"
                "To serve several, export with --backend python.",
            )
        self.newest()

    def newest(self) -> Version:
        """The version that a server which starts now serves."""
        numbers = self.numbers()
        if not numbers:
            raise ServeError(f"{self._folder}: no version in it")
        return self.version(numbers[-1])

    def numbers(self) -> list[int]:
        """The versions that are there, in order."""
        return versions(self._folder)

    def version(self, number: int) -> Version:
        """One of them.

        Raises:
            ServeError: it is not there or not complete.
        """
        folder = self._folder / str(number)
        try:
            adapters = read_adapters(folder)
            change = folder / CHANGE
            made = Change.model_validate_json(change.read_bytes()) if change.is_file() else None
        except (RecordError, ValidationError, OSError) as error:
            raise ServeError(
                f"{folder} is no complete set of adapters: {error}",
                f"Export again: neuro-latent export --adapter DIR --output {self.repository}",
            ) from None
        return Version(number, folder, adapters, made)

    def add(self, name: str, exported: Path) -> Version:
        """A new version in which ``name`` is the adapter in the folder ``exported``; one of that name gives way.

        Raises:
            UsageError: the name can be none.
            ServeError: the folder holds no adapter, one that does not fit the repository, or one whose graph does not
                run; or the repository cannot be written.
        """
        checked_name(name)
        with self.changing():
            newest = self.newest()
            record = self._checked(exported, newest.adapters[DEFAULT])

            def fill(building: Path) -> None:
                self._link_adapters(newest, building, leave_out=name)
                target = building / ADAPTERS / name
                target.mkdir()
                for file in (GRAPH, RECORD):
                    shutil.copyfile(exported / file, target / file)
                if sha256(target / GRAPH) != record.graph.sha256:
                    raise ServeError(f"{exported / GRAPH}: its sha256 is not that of {RECORD}", "Export it again.")

            return self._publish(newest, _changed("add", name, newest.number), fill)

    def remove(self, name: str) -> Version:
        """A new version without ``name``.

        Raises:
            UsageError: there is no such adapter, or it is the default.
            ServeError: the repository cannot be written.
        """
        with self.changing():
            newest = self.newest()
            if name == DEFAULT:
                raise UsageError(
                    f"{DEFAULT} cannot be removed: it answers requests that name no adapter",
                    f"Replace it with: neuro-latent adapters add {DEFAULT} --adapter DIR",
                )
            if name not in newest.adapters:
                raise UsageError(f"no adapter {name!r} in {self.repository}; there are {', '.join(newest.adapters)}")
            change = _changed("remove", name, newest.number)
            return self._publish(newest, change, lambda b: self._link_adapters(newest, b, leave_out=name))

    def rollback(self) -> Version:
        """A new version with the adapters that were there before the newest change that still holds.

        Raises:
            UsageError: there was none, or the version before it is not kept any more.
            ServeError: the repository cannot be written.
        """
        with self.changing():
            newest = self.newest()
            if newest.change is None or newest.change.before is None:
                raise UsageError(f"{self.repository}: nothing to go back to, it has what it was exported with")
            if newest.change.before not in self.numbers():
                raise UsageError(
                    f"{self.repository}: version {newest.change.before} is not kept any more; "
                    f"{KEPT} changes can be taken back"
                )
            target = self.version(newest.change.before)
            change = Change(
                action="rollback",
                adapter=newest.change.before_adapter,
                previous=newest.number,
                restores=target.number,
                before=target.change.before if target.change else None,
                before_adapter=target.change.before_adapter if target.change else "",
            )
            return self._publish(newest, change, lambda building: self._link_adapters(target, building))

    def withdraw(self, version: Version) -> None:
        """Take away a version that Triton could not load, so that no server starts with it."""
        with self.changing():
            self._discard(version.folder)

    @contextmanager
    def probing(self) -> Iterator[None]:
        """A change that is probed inside: whoever is killed there leaves versions that :meth:`unprobed` tells of."""
        with self.changing():
            mark = self._folder / UNPROBED
            if not mark.exists():
                mark.write_text(str(self.newest().number), encoding="utf-8")
                _to_disk(mark)
                _to_disk(self._folder)
            try:
                yield
            except ServeError:
                change = self.newest().change
                if self.unprobed() is None or (change and change.action == "rollback"):  # taken back
                    mark.unlink()
                raise
            mark.unlink()

    def is_writable(self) -> bool:
        """Whether changes can be written; False on a file system that is mounted to be read."""
        return os.access(self._folder, os.W_OK | os.X_OK)

    def unprobed(self) -> Version | None:
        """The newest version, where the command that published it was killed before it had probed it."""
        try:
            probed = int((self._folder / UNPROBED).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        newest = self.newest()
        return newest if newest.number > probed else None

    @contextmanager
    def changing(self) -> Iterator[None]:
        """While this lasts no other process changes the repository; what a killed one has left goes. May be nested.

        Raises:
            ServeError: the repository cannot be written.
            StopRequestedError: ``should_stop`` said so while another process was changing it.
        """
        if self._locked:
            yield
            return
        try:
            with (self._folder / LOCK).open("w") as lock:
                while not _is_locked(lock):
                    if self._should_stop():
                        raise StopRequestedError
                    time.sleep(LOOK_S)
                self._locked = True
                for left in self._folder.glob(f"{BUILDING}*"):
                    shutil.rmtree(left)
                yield
        except OSError as error:
            raise ServeError(
                f"{self.repository} cannot be changed: {error}",
                "Adapters can be added and removed only where the repository can be written.",
            ) from error
        finally:
            self._locked = False

    def _checked(self, exported: Path, fitting: AdapterRecord) -> AdapterRecord:
        """The record of an adapter that can be served here."""
        try:
            record = read_record(exported)
        except RecordError as error:
            raise ServeError(
                str(error), "Make one with: neuro-latent export --adapter DIR --only-adapter --output FOLDER"
            ) from None
        if wrong := misfits(record, fitting):
            raise ServeError("\n  ".join([f"{exported} does not fit {self.repository}:", *wrong]))
        rows, width, tokens = 2, fitting.fits["encoder_width"], fitting.fits["soft_prompt_tokens"]
        shape = (rows, tokens, fitting.fits["generator_width"])
        try:
            session = open_session(exported / GRAPH, 1)
            outputs = session.run(["soft_prompts", "gate"], {"raw_embedding": np.ones([rows, int(width)], np.float32)})
        except Exception as error:  # ONNX Runtime has an error of its own for everything
            raise ServeError(f"{exported / GRAPH} cannot be run: {' '.join(str(error).split())[:300]}") from None
        for output, wanted in zip(outputs, (shape, (rows, 4)), strict=True):
            if output.shape != wanted or not np.isfinite(output).all():
                found = f"{list(output.shape)} or what is no number"
                raise ServeError(f"{exported / GRAPH} writes {found}, not {list(wanted)}")
        return record

    @staticmethod
    def _link_adapters(source: Version, building: Path, leave_out: str = "") -> None:
        for name in source.adapters:
            if name == leave_out:
                continue
            (building / ADAPTERS / name).mkdir()
            for file in (GRAPH, RECORD):
                _link(source.folder_of(name) / file, building / ADAPTERS / name / file)

    def _publish(self, newest: Version, change: Change, fill: Callable[[Path], None]) -> Version:
        number = newest.number + 1
        building = Path(tempfile.mkdtemp(prefix=BUILDING, dir=self._folder))
        try:
            building.chmod(0o755)
            (building / ADAPTERS).mkdir()
            _link(newest.folder / MODEL, building / MODEL)
            fill(building)
            (building / CHANGE).write_text(change.model_dump_json(indent=2) + "\n", encoding="utf-8")
            for path in (*building.rglob("*"), building):
                _to_disk(path)
            building.rename(self._folder / str(number))
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        _to_disk(self._folder)
        version = self.version(number)
        needed = {number, newest.number}  # a server that starts meanwhile, or a withdrawal, falls back on the old one
        way = version
        for _ in range(KEPT):
            if way.change is None or way.change.before is None or way.change.before not in self.numbers():
                break
            way = self.version(way.change.before)
            needed.add(way.number)
        for old in set(self.numbers()) - needed:
            self._discard(self._folder / str(old))
        return version

    def _discard(self, folder: Path) -> None:
        """Remove a version in one go, as it was published: half of one must never be seen."""
        left = Path(tempfile.mkdtemp(prefix=BUILDING, dir=self._folder))
        folder.rename(left / folder.name)
        shutil.rmtree(left)


def _changed(action: Literal["add", "remove"], name: str, number: int) -> Change:
    return Change(action=action, adapter=name, previous=number, before=number, before_adapter=name)


def checked_name(name: str) -> str:
    """The name of an adapter.

    Raises:
        UsageError: it can be none.
    """
    try:
        return check_adapter(name)
    except InvalidInput as error:
        raise UsageError(str(error)) from None


def _link(source: Path, target: Path) -> None:
    """A second name for a file that never changes; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _to_disk(path: Path) -> None:
    """Wait until a file or a folder's list of names is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_locked(file: IO[str]) -> bool:
    """Lock a file; False where another process holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
