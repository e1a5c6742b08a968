"""What a client is told once: where the server is and how to speak to it."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from ._request import check_count, check_timeout
from .errors import InvalidRequestError
from .tls import TlsConfig

DEFAULT_URL = "grpc://127.0.0.1:8001"
URL_VARIABLE = "NEURO_LATENT_URL"
"""The environment variable with the address that is asked where none is given."""
_DEFAULT_PORTS = {"grpc": 8001, "grpcs": 8001, "http": 8000, "https": 443}
_HEADER_NAME = re.compile(r"[A-Za-z0-9_.-]+")  # what both HTTP headers and gRPC metadata allow


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


def default_url() -> str:
    """The address of the environment, or Triton's gRPC on this machine."""
    return os.environ.get(URL_VARIABLE) or DEFAULT_URL


@dataclass(frozen=True, slots=True)
class Settings:
    """Checked settings of a client. ``headers`` have lower-case names and hold the API key."""

    endpoint: Endpoint
    timeout_s: float
    retries: int
    headers: Mapping[str, str]
    tls: TlsConfig | None

    def __str__(self) -> str:
        """For people: secrets may be in any header, so no value is shown."""
        headers = f", headers={dict.fromkeys(self.headers, '***')}" if self.headers else ""
        tls = f", tls={self.tls}" if self.tls else ""
        return f"{self.endpoint.url!r}, timeout={self.timeout_s:g}, retries={self.retries}{headers}{tls}"


def make_settings(
    url: str, timeout: float, retries: int, headers: Mapping[str, str], api_key: str | None, tls: TlsConfig | None
) -> Settings:
    """Check what a client is told. Raises InvalidRequestError, which names the setting but no secret."""
    endpoint = parse_url(url)
    if tls is not None and not endpoint.is_encrypted:
        raise InvalidRequestError(f"tls: {url} is not encrypted; write {endpoint.scheme}s://")
    if tls is not None:
        tls.context()  # finds out now whether its files can be used
    given = [(name.lower(), value) for name, value in headers.items()]
    if api_key is not None:
        given.append(("authorization", f"Bearer {api_key}"))
    for name, value in given:
        if not _HEADER_NAME.fullmatch(name) or not (value.isascii() and value.isprintable()):
            raise InvalidRequestError(f"headers: {name!r} is not a name, or its value not one line of ASCII")
    if len(dict(given)) < len(given):
        raise InvalidRequestError("headers: one is given twice (api_key is the header Authorization)")
    return Settings(endpoint, check_timeout(timeout), check_count("retries", retries, 0), dict(given), tls)
