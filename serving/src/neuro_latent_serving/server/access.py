"""Who may do more on a Triton than ask for answers."""

import ipaddress
import json
import os
import secrets
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from neuro_latent_client._endpoint import parse_url

CLOSED_APIS = "model-repository,shared-memory,trace,logging"
"""What nobody needs who asks for answers: loading models, mapping memory, writing trace files, changing the log."""

NO_CALL_CARRIES = "x" * 20_000
"""A word that closes a part of gRPC to everybody: a call's metadata are at most 16 kB. A secret is no option: every
user of the machine can read the command line of tritonserver."""

CONNECTION_AGE_MS = 300_000
CONNECTION_GRACE_MS = 600_000  # as long as the longest deadline of a request


def server_options(host: str) -> list[str]:
    """Options of a tritonserver that listens on ``host``, a numeric address.

    On this machine models are loaded when somebody with the server's secret asks. Strict readiness would count the
    versions that a newer one has replaced as not ready; whoever starts us asks each model, and a model that does not
    load ends the server. On a network nothing is loaded after the start. Readiness is strict: a load balancer asks for
    it, and leaves out a server of which a model has failed. Connections are renewed, so that clients that keep theirs
    find the replicas that came after them.
    """
    closed = f"--grpc-restricted-protocol={CLOSED_APIS}:closed={NO_CALL_CARRIES}"
    if is_this_machine(host):
        return [closed, "--model-control-mode=explicit", "--load-model=*", "--strict-readiness=false"]
    return [
        closed,
        "--model-control-mode=none",
        "--strict-readiness=true",
        f"--grpc-max-connection-age={CONNECTION_AGE_MS}",
        f"--grpc-max-connection-age-grace={CONNECTION_GRACE_MS}",
    ]


def is_this_machine(host: str) -> bool:
    """Whether only programs of this machine reach a numeric address."""
    return host.startswith("127.")


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


def foreign_page(
    headers: Mapping[str, str], origins: Collection[str] = (), hosts: Collection[str] = ()
) -> tuple[str, str] | None:
    """The header and value by which a request comes from a page of another web site; None where it does not.

    A page says in ``Origin`` where it is from. One whose site has let its name point here (DNS rebinding) is known by
    its ``Host``, which then is a name; this machine is asked by a numeric address or as localhost.

    Args:
        headers: by lower-case names.
        origins: pages of other origins that may ask.
        hosts: further names of this server.
    """
    host, origin = headers.get("host", ""), headers.get("origin")
    try:
        name = urlsplit(f"//{host}").hostname or ""
        source = urlsplit(origin or "")
    except ValueError:
        return "Host or Origin", f"{host} {origin or ''}"
    hosts = [known.lower() for known in hosts]
    if name not in ("localhost", *hosts) and not _is_numeric(name):
        return "Host", host
    if origin is None or origin in origins or headers.get("sec-fetch-site") == "same-origin":
        return None
    return None if source.netloc == host or source.hostname in hosts else ("Origin", origin)


def _is_numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
