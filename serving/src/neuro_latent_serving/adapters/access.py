"""The secret of a running server: who has it loads adapters, which is closed to others."""

import json
import os
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from neuro_latent_client._endpoint import parse_url


@dataclass(frozen=True)
class ServerAccess:
    """Where a running server is, and the secret with which its HTTP does what is closed to others."""

    http: str
    grpc: str
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    @property
    def file(self) -> Path:
        return access_folder() / f"{parse_url(self.http).port}.json"

    def write(self) -> None:
        """Leave it where :func:`find_access` looks; only this user can read it.

        Raises:
            OSError: the folder cannot be written.
        """
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.remove()
        with open(os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(asdict(self), file)

    def remove(self) -> None:
        """Safe to call twice, and where nothing was written."""
        with suppress(OSError, RuntimeError):
            self.file.unlink()


def access_folder() -> Path:
    """Where running servers leave their secrets, among the user's state."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return state / "neuro-latent" / "servers"


def find_access(url: str) -> ServerAccess | None:
    """What a running server of this user at ``url`` (its HTTP or its gRPC, on this machine) has left."""
    wanted = parse_url(url)
    found: dict[float, ServerAccess] = {}
    for file in access_folder().glob("*.json"):
        with suppress(OSError, ValueError, TypeError):
            access = ServerAccess(**json.loads(file.read_bytes()))
            if wanted.is_loopback and (wanted.is_grpc, wanted.port) in [
                (True, parse_url(access.grpc).port),
                (False, parse_url(access.http).port),
            ]:
                found[file.stat().st_mtime] = access
    return found[max(found)] if found else None
