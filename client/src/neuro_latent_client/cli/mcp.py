"""``neuro-latent mcp``."""

from typing import Annotated

import typer

from neuro_latent_core.command_line import fail

from ._options import DEFAULT_URL, ApiKey, Ca, Certificate, ConnectionOptions, Key, Url, errors_as_lines


def mcp(
    url: Url = DEFAULT_URL,
    http_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Listen on this port of 127.0.0.1, at /mcp, in place of stdin and stdout."),
    ] = None,
    api_key: ApiKey = None,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
) -> None:
    """Be a server of the Model Context Protocol, for assistants and editors: the tools optimize and feedback.

    An assistant starts it by itself; in its settings the command is `neuro-latent` with the argument `mcp`.
    """
    try:
        from neuro_latent_client.integrations.mcp import make_server
    except ModuleNotFoundError as error:
        fail(f"error: the package {error.name} is not here: pip install 'neuro-latent-client[mcp]'")
    with errors_as_lines():
        connection = ConnectionOptions(url, api_key, ca, certificate, key)
        connection.async_client()  # says now what is wrong with the options
        server = make_server(connection.async_client)
        if http_port is None:
            server.run("stdio")
        else:
            server.run("streamable-http", host="127.0.0.1", port=http_port)
