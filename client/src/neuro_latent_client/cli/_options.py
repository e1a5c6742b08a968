"""What the commands share: options, the connection to a server, and how they tell its errors."""

import inspect
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from neuro_latent_client._endpoint import DEFAULT_URL as DEFAULT_URL
from neuro_latent_client._endpoint import URL_VARIABLE
from neuro_latent_client.async_client import AsyncClient
from neuro_latent_client.client import Client
from neuro_latent_client.errors import InvalidRequestError, NeuroLatentError
from neuro_latent_client.results import Feedback, Health, Optimization
from neuro_latent_client.tls import TlsConfig
from neuro_latent_core.command_line import fail
from neuro_latent_core.options import OPTIONS, Option

from ._interrupt import cancelled_by_interrupt

Url = Annotated[str, typer.Option(envvar=URL_VARIABLE, help="Triton or gateway: grpc://HOST:PORT or http://HOST:PORT.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON line, last on stdout.")]
ApiKey = Annotated[str | None, typer.Option(envvar="NEURO_LATENT_API_KEY", help="Sent as Authorization: Bearer.")]
Ca = Annotated[str | None, typer.Option(help="PEM file of the authorities to trust, for grpcs and https.")]
Certificate = Annotated[str | None, typer.Option(help="PEM file of this client's certificate, for mutual TLS.")]
Key = Annotated[str | None, typer.Option(help="PEM file of its private key.")]
Timeout = Annotated[float, typer.Option(help="Seconds after which to give up.")]


def takes_request_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each of the request's, before ``adapter``; its ``**given`` gets them."""
    known = list(inspect.signature(command, eval_str=True).parameters.values())[:-1]
    place = [parameter.name for parameter in known].index("adapter")
    added = [
        inspect.Parameter(
            name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=None,
            annotation=Annotated[option.kind | None, typer.Option(help=_help(option))],
        )
        for name, option in OPTIONS.items()
    ]
    command.__signature__ = inspect.Signature([*known[:place], *added, *known[place:]])  # type: ignore[attr-defined]
    return command


def _help(option: Option) -> str:
    default = f" Server's default: {option.default:g}." if option.default else ""
    return f"{option.help[0].upper()}{option.help[1:]}.{default}"


def print_json(result: Optimization | Feedback | Health) -> None:
    """The line of ``--json``."""
    typer.echo(json.dumps(result.to_dict(), ensure_ascii=False))


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """What the options say of the server."""

    url: str
    api_key: str | None
    ca: str | None
    certificate: str | None
    key: str | None
    timeout: float = 30.0

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A client whose request Ctrl-C cancels; closed at the end."""
        client = Client(self.url, **self._settings())
        with cancelled_by_interrupt(client), client:
            yield client

    def async_client(self) -> AsyncClient:
        return AsyncClient(self.url, **self._settings())

    def _settings(self) -> dict[str, Any]:
        logging.getLogger("neuro_latent_client").setLevel(logging.ERROR)  # no retry between the lines of the answer
        has_tls = any((self.ca, self.certificate, self.key))
        tls = TlsConfig(self.ca, self.certificate, self.key) if has_tls else None
        return {"timeout": self.timeout, "api_key": self.api_key, "tls": tls}


@contextmanager
def errors_as_lines() -> Iterator[None]:
    """Exit 2 for what the user can correct in the command, 1 for all other errors of the client."""
    try:
        yield
    except NeuroLatentError as error:
        fail(f"error: {error}", exit_code=2 if isinstance(error, InvalidRequestError) else 1)
