"""``neuro-latent health``."""

from typing import Annotated

import typer

from neuro_latent_core.command_line import note

from ._options import (
    DEFAULT_URL,
    ApiKey,
    Ca,
    Certificate,
    ConnectionOptions,
    Json,
    Key,
    Url,
    errors_as_lines,
    print_json,
)


def health(
    url: Url = DEFAULT_URL,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for each answer.")] = 5.0,
    as_json: Json = False,
    api_key: ApiKey = None,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
) -> None:
    """Check a server: exit code 0 when it is ready, else 1."""
    with errors_as_lines(), ConnectionOptions(url, api_key, ca, certificate, key).client() as client:
        state = client.health(timeout=timeout)
    if as_json:
        print_json(state)
    else:
        typer.echo(f"{state.url} {'ready' if state.ready else 'live, not ready' if state.live else 'not live'}")
        if state.problem:
            note(state.problem)
    if not state.ready:
        raise typer.Exit(1)
