"""What a client is told once: where the server is and how to speak to it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ._endpoint import Endpoint, parse_url
from ._request import check_count, check_timeout
from .errors import InvalidRequestError
from .tls import TlsConfig

_HEADER_NAME = re.compile(r"[A-Za-z0-9_.-]+")  # what both HTTP headers and gRPC metadata allow


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
