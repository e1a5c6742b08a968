"""The address of a server."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from .errors import InvalidRequestError

DEFAULT_URL = "grpc://127.0.0.1:8001"
_DEFAULT_PORTS = {"grpc": 8001, "grpcs": 8001, "http": 8000, "https": 443}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A parsed URL. ``url`` is as the caller wrote it; ``path`` is "" or begins with "/" (HTTP behind a prefix)."""

    url: str
    scheme: str
    host: str
    port: int
    path: str

    @property
    def netloc(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_grpc(self) -> bool:
        return self.scheme.startswith("grpc")

    @property
    def is_encrypted(self) -> bool:
        return self.scheme in ("grpcs", "https")

    @property
    def is_loopback(self) -> bool:
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


def parse_url(url: str) -> Endpoint:
    """Parse ``grpc://host:port``, ``http://host:port/prefix``, or the same with TLS, ``grpcs`` and ``https``.

    Raises:
        InvalidRequestError: the URL is none of these.

    >>> parse_url("grpc://127.0.0.1").port
    8001
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidRequestError(f"url {url!r} cannot be read: {error}") from None
    if parts.scheme not in _DEFAULT_PORTS or not host:
        raise InvalidRequestError(f"url {url!r} is not an address: write grpc://HOST:PORT or http://HOST:PORT")
    path = parts.path.rstrip("/")
    if parts.query or parts.fragment or "@" in parts.netloc or (path and parts.scheme.startswith("grpc")):
        raise InvalidRequestError(f"url {url!r} has parts that are not used: write {parts.scheme}://HOST:PORT")
    return Endpoint(url, parts.scheme, host, _DEFAULT_PORTS[parts.scheme] if port is None else port, path)
