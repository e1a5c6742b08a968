"""How a gateway listens, whom it lets in, and what it writes down; imports nothing of the extra."""

import dataclasses
import ipaddress
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from pydantic import AfterValidator, Field

from neuro_latent_serving.errors import UsageError
from neuro_latent_serving.options import LogFile, Port, checked


def _check_upstream(url: str) -> str:
    parts = urlsplit(url)
    if url and (parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment):
        raise ValueError("not the address of an OpenAI-compatible server, such as https://api.openai.com/v1")
    return url


Network = Annotated[str, AfterValidator(lambda text: str(ipaddress.ip_network(text)))]


@checked
class GatewayConfig:
    """The gateway's options, for ``neuro-latent gateway`` and ``neuro-latent serve``. Times are in seconds.

    ``quiet`` logs what went wrong only; without ``log_file``, a JSON line a request goes to stderr. In ``max_body`` all
    texts of a feedback at their limits, escaped, fit.

    Raises:
        UsageError: a value is outside its range; the message names its option.
    """

    host: Annotated[str, typer.Option("--gateway-host", help="IPv4 address of the REST API and the page.")] = (
        "127.0.0.1"
    )
    port: Annotated[
        Port, typer.Option("--gateway-port", help="Port of the REST API and the page; 0 takes any free one.")
    ] = 8080
    metrics_port: Annotated[
        Port | None,
        typer.Option(
            "--gateway-metrics-port",
            help="Port of the gateway's own Prometheus metrics, at the same address; 0 takes any free one. "
            "Default: /metrics of the REST API.",
        ),
    ] = None
    api_keys: Annotated[
        Path | None,
        typer.Option(
            envvar="NEURO_LATENT_API_KEYS",
            help="File of API keys (see gateway-key). Default: the REST API asks for none.",
        ),
    ] = None
    rate: Annotated[
        int,
        Field(ge=0),
        typer.Option(help="REST requests a minute of one key, or of one address; 0 is no limit."),
    ] = 0
    trusted_proxies: Annotated[
        list[Network],
        typer.Option(
            "--trusted-proxy",
            help="Address or network of a proxy whose X-Forwarded-For is believed; give it once for each. "
            "Default: none.",
        ),
    ] = dataclasses.field(default_factory=list)
    cors_origins: Annotated[
        list[str],
        typer.Option(
            "--cors-origin",
            help="Another origin whose pages may call the REST API; give it once for each.",
        ),
    ] = dataclasses.field(default_factory=list)
    allowed_hosts: Annotated[
        list[str],
        typer.Option(
            "--allowed-host",
            help="A name by which the REST API is reached, such as a proxy's; give it once for each. Without API keys "
            "other names than localhost are refused, for a web page may have let its own name point here.",
        ),
    ] = dataclasses.field(default_factory=list)
    upstream: Annotated[
        str,
        AfterValidator(_check_upstream),
        typer.Option(
            help="OpenAI-compatible server, with its /v1, to which requests of /v1 go on with a better prompt in them."
        ),
    ] = ""
    upstream_key: Annotated[
        str,
        typer.Option(
            envvar="NEURO_LATENT_UPSTREAM_KEY",
            help="Its API key, for all callers; set it in the environment. Default: the caller's is passed on.",
        ),
    ] = ""
    upstream_budget: Annotated[
        float,
        typer.Option(min=0.01, help="Seconds that a better prompt may take; then the raw one goes on."),
    ] = 0.3
    upstream_longest: Annotated[
        int,
        typer.Option(min=1, help="Nothing is added to a message of more characters."),
    ] = 2000
    upstream_every_turn: Annotated[
        bool,
        typer.Option(help="Add to later messages of a conversation too."),
    ] = False
    upstream_shadow: Annotated[
        bool,
        typer.Option(help="Make better prompts and count them, but pass on the raw ones."),
    ] = False
    max_body: Annotated[int, typer.Option(min=1, help="The most bytes of a request.")] = 2 * 2**20
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for an answer.")] = 60.0
    drain_timeout: Annotated[
        int,
        Field(ge=0),
        typer.Option(help="Seconds that requests in flight may take to finish when the gateway stops."),
    ] = 30
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="Write raw prompts into the gateway's log.")] = (
        False
    )
    log_file: Annotated[LogFile | None, typer.Option(help="Append the log to this file. Default: stderr.")] = None
    quiet: bool = False

    def __post_init__(self) -> None:
        if self.upstream and self.api_keys and not self.upstream_key:
            raise UsageError(
                "--api-keys and --upstream need the upstream's own key",
                "Set NEURO_LATENT_UPSTREAM_KEY: the keys of callers are for this gateway and must not be sent on.",
            )


UPSTREAM = tuple(field.name for field in dataclasses.fields(GatewayConfig) if field.name.startswith("upstream"))
"""The fields of requests that go on to another server."""
