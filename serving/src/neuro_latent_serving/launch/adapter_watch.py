"""A server that takes new adapters from where they are published, while it serves."""

import fcntl
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from neuro_latent_core.repository import PROJECTOR, hold
from neuro_latent_serving.adapters.adapter_store import BUILDING, AdapterStore, StopRequestedError
from neuro_latent_serving.adapters.published import PublishedAdapters, PublishedSet, UnreadableError, converge
from neuro_latent_serving.command import console, warn
from neuro_latent_serving.errors import ServeError
from neuro_latent_serving.launch.process import temporary_folder
from neuro_latent_serving.launch.triton_server import TritonServer

OWN_PREFIX = "neuro-latent-repository-"
LEFT_S = 60.0
"""Before that, a new one may not be locked yet."""
RETRY_S, SOON_S = 600.0, 30.0
"""After so long a set that has failed is tried again, for it may have been the machine; sooner if it was not read."""
JOIN_S = 5.0
FIRST_LOOK_S = 60.0
"""A server does not wait longer for a store that does not answer; it begins with the adapters that it has."""


@contextmanager
def with_own_adapters(repository: Path) -> Iterator[Path]:
    """A repository of links to another, which may be read-only, but with adapters of its own, which can be changed."""
    _remove_leftovers()
    folder = temporary_folder()
    with tempfile.TemporaryDirectory(prefix=OWN_PREFIX, dir=folder, ignore_cleanup_errors=True) as temporary:
        own = Path(temporary)
        with ExitStack() as held:
            for folder in (own, repository):
                held.callback(os.close, hold(folder))
            for path in repository.absolute().iterdir():
                if path.name == PROJECTOR:
                    shutil.copytree(path, own / PROJECTOR, ignore=shutil.ignore_patterns(f"{BUILDING}*"))
                else:
                    (own / path.name).symlink_to(path)
            yield own


def _remove_leftovers() -> None:
    """Remove what servers that were killed have left: whatever nobody has locked for a while."""
    for left in temporary_folder().glob(f"{OWN_PREFIX}*"):
        # Somebody else's, or one whose server runs, or there are no locks here: it stays.
        with suppress(OSError), ExitStack() as opened:
            lock = os.open(left, os.O_RDONLY | os.O_NOFOLLOW)
            opened.callback(os.close, lock)
            found = os.fstat(lock)
            if found.st_uid == os.geteuid() and time.time() - found.st_mtime > LEFT_S:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left)


class AdapterWatch:
    """Looks for newly published adapters every few seconds, in a thread of its own, until it is closed.

    Args:
        server: started, on a repository of :func:`with_own_adapters`.
        every_s: seconds between two looks.
        should_stop: asked while a change waits.

    Raises:
        ServeError: the repository's adapters cannot be changed.
    """

    def __init__(
        self, published: PublishedAdapters, server: TritonServer, every_s: float, should_stop: Callable[[], bool]
    ) -> None:
        self._server, self._published, self._every_s = server, published, every_s
        self._store = AdapterStore(server.repository, should_stop)
        self._done: PublishedSet | None = None
        self._retry_at_s = 0.0
        self._told = ""
        self._looked, self._closed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="adapter-watch", daemon=True)

    def start(self) -> None:
        """Take what is published now, which is waited for, for a time; and go on looking."""
        self._thread.start()
        self._looked.wait(FIRST_LOOK_S)

    def close(self) -> None:
        """Look no more. A change that is being loaded is waited for, for a moment."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)

    def look(self) -> None:
        """Take what is published, if it is another set than the last time. What goes wrong is told, once."""
        wanted = None
        try:
            wanted = self._published.read()
            if wanted is None or (wanted == self._done and time.monotonic() < self._retry_at_s):
                return
            with self._server.owner() as client:
                made, errors = converge(self._store, self._published, wanted, client)
            if made:
                served = ", ".join(f"{name} {version}" for name, version in made[-1].model_versions.items())
                console.print(f"adapters {served}  (from {self._published.url})", soft_wrap=True, highlight=False)
            if errors:
                soon = all(isinstance(error, UnreadableError) for error in errors)
                raise (UnreadableError if soon else ServeError)("; ".join(map(str, errors)))
            self._done, self._retry_at_s, self._told = wanted, float("inf"), ""
        except StopRequestedError:
            self._closed.set()
        except Exception as error:  # whatever it is, the server goes on, and so does looking
            refused = isinstance(error, ServeError) and not isinstance(error, UnreadableError)
            self._done, self._retry_at_s = wanted, time.monotonic() + (RETRY_S if refused else SOON_S)
            text = str(error) if isinstance(error, ServeError) else f"{type(error).__name__}: {error}"
            if text != self._told:
                self._told = text
                warn(f"adapters of {self._published.url}: {text}")

    def _run(self) -> None:
        self.look()
        self._looked.set()
        while not self._closed.wait(self._every_s):
            self.look()
