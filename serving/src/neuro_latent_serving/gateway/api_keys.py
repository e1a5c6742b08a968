"""Who may ask, and how often."""

import fcntl
import hashlib
import hmac
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from neuro_latent_core.encoding import decode
from neuro_latent_serving.errors import UsageError

NAME = re.compile(r"[\w.@-]{1,64}")
DIGEST = re.compile(r"[0-9a-f]{64}")
REMEMBERED = 10_000
PROXY = "proxy"


class ApiKeys:
    """Names and SHA-256 hashes of keys: a file with a line ``NAME HASH`` for each; ``#`` begins a comment.

    A line that ends with ``proxy`` is of a key that passes on what others say: its feedback may name any user.

    The keys are random and long, so a plain hash of them cannot be guessed back.

    Attributes:
        count: of keys.
        proxies: names of those keys.

    Raises:
        UsageError: the file cannot be read, or a line of it.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._version: tuple[int, ...] | None = ()
        self.refresh()

    def refresh(self) -> bool:
        """Read the file if it has changed; whether it has.

        Raises:
            UsageError: as above; the keys stay as they are, and the next calls are quiet until the file changes again.
        """
        version = _version(self._file)
        if version == self._version:
            return False
        self._version = version
        file, digests, proxies = self._file, dict[str, str](), set[str]()
        try:
            lines = decode(file.read_bytes()).splitlines()
        except (OSError, ValueError) as error:
            raise UsageError(
                f"--api-keys {file}: cannot be read: {error}",
                "Make one with: neuro-latent gateway-key NAME --api-keys FILE",
            ) from None
        for number, line in enumerate(lines, start=1):
            name, *rest = line.partition("#")[0].split() or [""]
            if not name:
                continue
            if rest[1:] == [PROXY]:
                proxies.add(name)
                rest.pop()
            if len(rest) != 1 or not DIGEST.fullmatch(rest[0]) or name in digests:
                raise UsageError(f"--api-keys {file}, line {number}: not a new name and a SHA-256 hash")
            digests[name] = rest[0]
        self._digests, self.proxies, self.count = digests, proxies, len(digests)
        return True

    def name_of(self, key: str) -> str | None:
        """The name of a key; None if it is no key. Takes the same time for every key."""
        digest, found = _digest(key), None
        for name, known in self._digests.items():
            if hmac.compare_digest(digest, known):
                found = name
        return found


def add_key(file: Path, name: str, *, proxy: bool = False) -> str:
    """Make a key, add its hash to the file, and return the key: it is nowhere else.

    The file is written beside and renamed, under a lock of its folder; its owner and its mode stay.

    Raises:
        UsageError: the name cannot be used or is taken, or the file cannot be read or written.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a key: use up to 64 letters, digits and . @ _ -")
    key = f"nl_{secrets.token_urlsafe(32)}"
    target = file.resolve()
    try:
        with _locked(target.parent):
            known = target.read_bytes() if target.exists() else b""
            if known and name in ApiKeys(file)._digests:
                raise UsageError(f"{file} has a key of the name {name}", "Delete its line to withdraw it.")
            if known and not known.endswith(b"\n"):
                known += b"\n"
            _replace(target, known + f"{name} {_digest(key)}{f' {PROXY}' if proxy else ''}\n".encode())
    except OSError as error:
        raise UsageError(
            f"--api-keys {file}: cannot be written: {error.strerror}", "Name a file in a folder that you can write."
        ) from None
    return key


def _version(file: Path) -> tuple[int, ...] | None:
    """Other numbers for every other content, also behind a link that is exchanged, as Kubernetes does; None without a
    file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_size


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """While this lasts no other process holds the folder so."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(file: Path, content: bytes) -> None:
    """Give a file other content in one step; one that was not there is for its owner alone."""
    descriptor, beside = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as written:
            written.write(content)
            written.flush()
            os.fsync(descriptor)
        if file.exists():
            shutil.copymode(file, beside)
            with suppress(PermissionError):  # only root gives files away
                os.chown(beside, file.stat().st_uid, file.stat().st_gid)
        os.replace(beside, file)
    except BaseException:
        os.unlink(beside)
        raise


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


class RateLimit:
    """At most ``rate`` requests a minute of each caller; a minute's worth may come at once."""

    def __init__(self, rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._paid_until: dict[str, float] = {}  # when the caller's requests so far will have been worn off

    def wait_s(self, caller: str) -> float:
        """Count a request of the caller; 0 if it may go on, else the seconds after which it may come again."""
        now = self._clock()
        if len(self._paid_until) > REMEMBERED:
            self._paid_until = {known: until for known, until in self._paid_until.items() if until > now}
        until = max(self._paid_until.get(caller, now), now) + 60 / self._rate
        if until > now + 60 + 1e-6:
            return until - now - 60
        self._paid_until[caller] = until
        return 0.0
