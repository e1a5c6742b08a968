"""``neuro-latent gateway`` and ``neuro-latent gateway-key``."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neuro_latent_client import InvalidRequestError
from neuro_latent_client._endpoint import DEFAULT_URL, parse_url
from neuro_latent_serving.command import StopSignals, console, reported_errors, warn
from neuro_latent_serving.errors import ServeError, UsageError
from neuro_latent_serving.gateway.api_keys import add_key
from neuro_latent_serving.gateway.config import GatewayConfig
from neuro_latent_serving.options import given, takes
from neuro_latent_serving.web.ports import is_this_machine, numeric_host

if TYPE_CHECKING:
    from neuro_latent_serving.gateway.server import GatewayServer  # its dependencies come with an extra

GATEWAY_HINT = 'Install it with: pip install "neuro-latent-serving[gateway]"'


@takes(GatewayConfig, after="triton")
def gateway(
    triton: Annotated[
        str, typer.Option(envvar="NEURO_LATENT_URL", help="The Triton to ask: grpc://HOST:PORT or http://HOST:PORT.")
    ] = DEFAULT_URL,
    as_json: Annotated[bool, typer.Option("--json", help="When ready, print one JSON line on stdout.")] = False,
    **options: Any,
) -> None:
    """Serve the REST API and the page in front of a Triton that runs already, here or elsewhere.

    `neuro-latent serve` brings both. Ctrl-C or SIGTERM lets the requests in flight finish; a second one stops at once.
    """
    with reported_errors(), StopSignals() as signals:
        config = GatewayConfig(**given(GatewayConfig, options))
        try:
            parse_url(triton)
        except InvalidRequestError as error:
            raise UsageError(f"--triton: {error}") from None
        with make_gateway(config, lambda: triton) as server:
            server.start()
            console.print(f"{server.url} in front of {triton}; Ctrl-C stops it", soft_wrap=True, highlight=False)
            if as_json:
                facts = {"gateway": server.url, "metrics": server.metrics_url, "triton": triton}
                sys.stdout.write(json.dumps(facts) + "\n")
                sys.stdout.flush()
            while not signals.requested():
                server.check()
                time.sleep(0.1)
            server.stop(signals.insisted)


def gateway_key(
    name: Annotated[str, typer.Argument(help="Whose key it is; feedback sent with it bears this name.")],
    api_keys: Annotated[Path, typer.Option(help="The file of keys; it is made if it is not there.")],
    proxy: Annotated[
        bool, typer.Option("--proxy", help="The key of a program that passes on feedback: it may name any user.")
    ] = False,
) -> None:
    """Make an API key: its hash goes to the file, the key itself is printed this once."""
    with reported_errors():
        typer.echo(add_key(api_keys, name, proxy=proxy))
        console.print(f"added {name} to {api_keys}; a running gateway takes it at once", soft_wrap=True)


def make_gateway(config: GatewayConfig, url: Callable[[], str]) -> "GatewayServer":
    """The gateway in front of the Triton at ``url``, which is asked for when it starts; not started yet.

    Raises:
        ServeError: its dependencies are not installed, its port is taken, or its file of keys cannot be read.
    """
    try:
        from neuro_latent_serving.gateway.server import GatewayServer, triton_client
    except ModuleNotFoundError as error:
        raise ServeError(f"the gateway needs {error.name}", GATEWAY_HINT) from None
    if config.api_keys is None and not is_this_machine(numeric_host(config.host)):
        warn(f"the gateway listens on {config.host} and asks for no API keys; see --api-keys")
    return GatewayServer(config, lambda: triton_client(config, url()))
