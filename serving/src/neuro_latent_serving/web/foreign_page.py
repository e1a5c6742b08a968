"""Whether a request comes from a page of another web site."""

import ipaddress
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit


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
