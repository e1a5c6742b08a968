"""How a gateway listens, whom it lets in, and what it writes down."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from neuro_latent_serving.server.serve_errors import UsageError


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
