"""Options that several commands share."""

from typing import Annotated

import typer

from neuro_latent_client._endpoint import DEFAULT_URL as DEFAULT_URL

Url = Annotated[str, typer.Option(envvar="NEURO_LATENT_URL", help="The server: grpc://HOST:PORT or http://HOST:PORT.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON line, last on stdout.")]
