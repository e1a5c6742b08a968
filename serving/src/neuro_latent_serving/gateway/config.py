"""How a gateway listens, whom it lets in, and what it writes down; imports nothing of the extra."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from neuro_latent_serving.errors import UsageError


@dataclass(frozen=True)
class GatewayConfig:
    """Times are in seconds.

    Attributes:
        port: 0 takes any free one.
        api_keys: file of keys, see :class:`ApiKeys`; None lets everybody in.
        rate: requests a minute of one key, or of one address where there are no keys; 0 is no limit.
        trusted_proxies: addresses or networks of proxies whose X-Forwarded-For is believed.
        cors_origins: pages of other origins that may call; none by default.
        allowed_hosts: names by which it is reached, besides localhost and numeric addresses; with ``api_keys`` any.
        max_body: the most bytes of a request; all texts of a feedback at their limits, escaped, fit in the default.
        timeout: for an answer of Triton.
        drain_timeout: for requests in flight when the gateway is asked to stop.
        log_prompts: write raw prompts into the log.
        log_file: where the log goes, a JSON line a request; None is stderr.
        quiet: log what went wrong only.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    api_keys: Path | None = None
    rate: int = 0
    trusted_proxies: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    max_body: int = 2 * 2**20
    timeout: float = 60.0
    drain_timeout: int = 30
    log_prompts: bool = False
    log_file: Path | None = None
    quiet: bool = False

    def __post_init__(self) -> None:
        if not (self.port == 0 or 1024 <= self.port <= 65535):
            raise UsageError(f"--gateway-port {self.port}: not a usable port", "Use 1024 to 65535, or 0 for any.")
        for name in ("rate", "drain_timeout"):
            if getattr(self, name) < 0:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be 0 or more")
        for proxy in self.trusted_proxies:
            try:
                ipaddress.ip_network(proxy)
            except ValueError:
                raise UsageError(f"--trusted-proxy {proxy}: not an IP address or network such as 10.0.0.0/8") from None
        if self.log_file is not None and (self.log_file.is_dir() or not self.log_file.absolute().parent.is_dir()):
            raise UsageError(f"--log-file {self.log_file}: not a file in an existing folder")


DEFAULTS = GatewayConfig()

GatewayHost = Annotated[str, typer.Option("--gateway-host", help="IPv4 address of the REST API and the page.")]
GatewayPort = Annotated[
    int, typer.Option("--gateway-port", help="Port of the REST API and the page; 0 takes any free one.")
]
ApiKeysFile = Annotated[
    Path | None,
    typer.Option(
        envvar="NEURO_LATENT_API_KEYS", help="File of API keys (see gateway-key). Default: the REST API asks for none."
    ),
]
Rate = Annotated[int, typer.Option(help="REST requests a minute of one key, or of one address; 0 is no limit.")]
TrustedProxies = Annotated[
    list[str] | None,
    typer.Option(
        help="Address or network of a proxy whose X-Forwarded-For is believed; give it once for each. Default: none."
    ),
]
CorsOrigins = Annotated[
    list[str] | None, typer.Option(help="Another origin whose pages may call the REST API; give it once for each.")
]
AllowedHosts = Annotated[
    list[str] | None,
    typer.Option(
        help="A name by which the REST API is reached, such as a proxy's; give it once for each. Without API keys "
        "other names than localhost are refused, for a web page may have let its own name point here."
    ),
]
LogPrompts = Annotated[bool, typer.Option("--log-prompts", help="Write raw prompts into the gateway's log.")]
