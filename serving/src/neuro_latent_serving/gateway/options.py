"""Options that ``neuro-latent gateway`` and ``neuro-latent serve`` share; imports nothing of the extra."""

from pathlib import Path
from typing import Annotated

import typer

from neuro_latent_serving.gateway.config import GatewayConfig

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
