"""Encrypted connections: whom to trust, and who this client is."""

import codecs
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InvalidRequestError

if TYPE_CHECKING:
    import ssl

PemFile = str | os.PathLike[str] | None


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """For ``grpcs`` and ``https`` URLs. The server is always verified.

    Attributes:
        ca: PEM file of the authorities that sign servers; None is those that the platform trusts.
        certificate: PEM file of this client's certificate and its chain, for mutual TLS.
        key: PEM file of its private key.

    Raises:
        InvalidRequestError: ``certificate`` and ``key`` are not given together.

    >>> TlsConfig(ca="ca.pem", certificate="client.pem", key="client.key").ca
    'ca.pem'
    """

    ca: PemFile = None
    certificate: PemFile = None
    key: PemFile = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InvalidRequestError("tls: certificate and key are needed together")

    def read(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """The contents of ``ca``, ``key`` and ``certificate``. Raises InvalidRequestError when one cannot be read."""
        return _read("ca", self.ca), _read("key", self.key), _read("certificate", self.certificate)

    def context(self) -> "ssl.SSLContext":
        """The same for HTTP. Raises InvalidRequestError when a file cannot be used."""
        import ssl

        self.read()  # says which file it is, as Python's ssl does not
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except ssl.SSLError as error:
            raise InvalidRequestError(f"tls: a PEM file cannot be used: {error}") from None
        return context


def _read(name: str, path: PemFile) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes().removeprefix(codecs.BOM_UTF8)  # which gRPC does not skip, as OpenSSL does
    except OSError as error:
        raise InvalidRequestError(f"tls: {name} cannot be read: {error}") from None
