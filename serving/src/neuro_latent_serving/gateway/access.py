"""Who may ask, and how often."""

import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from neuro_latent_serving.server.errors import UsageError

NAME = re.compile(r"[\w.@-]{1,64}")
DIGEST = re.compile(r"[0-9a-f]{64}")
REMEMBERED = 10_000
PROXY = "proxy"


class ApiKeys:
    """Names and SHA-256 hashes of keys: a file with a line ``NAME HASH`` for each; ``#`` begins a comment.

    A line that ends with ``proxy`` is of a key that passes on what others say: its feedback may name any user.

    The keys are random and long, so a plain hash of them cannot be guessed back.

    Raises:
        UsageError: the file cannot be read, or a line of it.
    """

    def __init__(self, file: Path) -> None:
        self._digests: dict[str, str] = {}
        self.proxies: set[str] = set()
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"--api-keys {file}: cannot be read: {error}",
                "Make one with: neuro-latent gateway-key NAME --api-keys FILE",
            ) from None
        for number, line in enumerate(lines, start=1):
            name, *rest = line.partition("#")[0].split() or [""]
            if not name:
                continue
            if rest[1:] == [PROXY]:
                self.proxies.add(name)
                rest.pop()
            if len(rest) != 1 or not DIGEST.fullmatch(rest[0]) or name in self._digests:
                raise UsageError(f"--api-keys {file}, line {number}: not a new name and a SHA-256 hash")
            self._digests[name] = rest[0]

    def name_of(self, key: str) -> str | None:
        """The name of a key; None if it is no key. Takes the same time for every key."""
        digest, found = _digest(key), None
        for name, known in self._digests.items():
            if hmac.compare_digest(digest, known):
                found = name
        return found


def add_key(file: Path, name: str, *, proxy: bool = False) -> str:
    """Make a key, append its hash to the file, and return the key: it is nowhere else.

    Raises:
        UsageError: the name cannot be used or is taken.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a key: use up to 64 letters, digits and . @ _ -")
    if file.exists() and name in ApiKeys(file)._digests:
        raise UsageError(f"{file} has a key of the name {name}", "Delete its line to withdraw it.")
    key = f"nl_{secrets.token_urlsafe(32)}"
    with open(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "w", encoding="utf-8") as lines:
        lines.write(f"{name} {_digest(key)}{f' {PROXY}' if proxy else ''}\n")
    return key


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
