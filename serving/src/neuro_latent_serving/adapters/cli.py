"""``neuro-latent adapters``: the adapters of a repository, and of the server that runs on it."""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from neuro_latent_client import Client, InvalidRequestError, NeuroLatentError
from neuro_latent_client._endpoint import DEFAULT_URL
from neuro_latent_core.protocol import OWN_HEADER, PROJECTOR_MODEL
from neuro_latent_core.repository import DEFAULT, RECORD
from neuro_latent_serving.adapters.access import find_access
from neuro_latent_serving.adapters.adapter_store import AdapterStore, Version, checked_name
from neuro_latent_serving.adapters.promotion import promote
from neuro_latent_serving.adapters.published import PublishedAdapters
from neuro_latent_serving.command import StopSignals, console, reported_errors
from neuro_latent_serving.errors import ServeError, UsageError
from neuro_latent_serving.repository.check import DEFAULT_REPOSITORY
from neuro_latent_serving.repository.export import export_command, run_export

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Show and change the adapters of a repository, also while Triton serves it. "
    "Exit codes: 0 done, 1 failure (the adapters from before answer), 2 wrong usage.",
)

Repository = Annotated[Path, typer.Option(help="Exported model repository.", metavar="REPO")]
Url = Annotated[
    str,
    typer.Option(
        envvar="NEURO_LATENT_URL", help="The Triton that serves it, on this machine: grpc://HOST:PORT or http://…"
    ),
]
Offline = Annotated[bool, typer.Option("--offline", help="Only write; a server serves it when it starts.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON line.")]
Name = Annotated[str, typer.Argument(help="Letters, digits, '.', '_' and '-'; at most 64.")]


@app.command(name="list")
def list_adapters(
    repository: Repository = DEFAULT_REPOSITORY, url: Url = DEFAULT_URL, offline: Offline = False, as_json: Json = False
) -> None:
    """Show the adapters, the versions that are kept, and which one is served."""
    with reported_errors():
        store = AdapterStore(repository)
        newest, live = store.newest(), None if offline else _live_version(url)
        kept = [store.version(number) for number in store.numbers()]
    if as_json:
        facts = {
            "repository": str(repository),
            "version": newest.number,
            "live": live,
            "adapters": newest.model_versions,
            "versions": [
                {
                    "version": version.number,
                    "adapters": version.model_versions,
                    "change": version.change and version.change.model_dump(),
                }
                for version in kept
            ],
        }
        typer.echo(json.dumps(facts))
        return
    table = Table("version", "", "what was done", "adapters")
    for version in kept:
        state = "served" if version.number == live else "newest" if version is kept[-1] else ""
        texts = (f"{name}  {made_by}" for name, made_by in version.model_versions.items())
        table.add_row(str(version.number), state, _done(version), "\n".join(texts))
    console.print(table)
    if live is None:
        console.print("no server was asked" if offline else f"no server at {url}", highlight=False)


@app.command()
def add(
    name: Name,
    adapter: Annotated[
        Path,
        typer.Option(
            help="Adapter folder or training run, which is exported first, or what `export --only-adapter` wrote.",
            metavar="DIR",
        ),
    ],
    repository: Repository = DEFAULT_REPOSITORY,
    url: Url = DEFAULT_URL,
    offline: Offline = False,
    encoder: Annotated[str | None, typer.Option(help="Frozen encoder, if not the one that the adapter names.")] = None,
    generator: Annotated[str | None, typer.Option(help="Frozen T5, if not the one that the adapter names.")] = None,
    as_json: Json = False,
) -> None:
    """Add an adapter, or replace the one of that name; `default` answers requests that name none.

    The server goes on: each request is answered by the adapters from before or by the new ones. The new one is asked
    for an answer; if that fails, the adapters from before are served again.
    """
    with reported_errors():
        checked_name(name)
        store = AdapterStore(repository)
        with store.changing():  # what will fail is better told before an export than after it
            pass
        if not offline:
            with _client(url) as client:
                if not (state := client.health()).live:
                    raise ServeError(state.problem, "--offline only writes; a server serves it when it starts.")
        with _exported(adapter, store.newest(), encoder, generator) as folder:
            _change(store, lambda: store.add(name, folder), None if offline else url, as_json=as_json)


@app.command()
def remove(
    name: Name,
    repository: Repository = DEFAULT_REPOSITORY,
    url: Url = DEFAULT_URL,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Remove an adapter; requests that name it are refused from then on."""
    with reported_errors():
        store = AdapterStore(repository)
        _change(store, lambda: store.remove(name), None if offline else url, as_json=as_json)


@app.command()
def rollback(
    repository: Repository = DEFAULT_REPOSITORY, url: Url = DEFAULT_URL, offline: Offline = False, as_json: Json = False
) -> None:
    """Take back the newest change; again, the one before it."""
    with reported_errors():
        store = AdapterStore(repository)
        _change(store, store.rollback, None if offline else url, as_json=as_json)


@app.command()
def publish(
    target: Annotated[
        str, typer.Argument(metavar="URL", help="A folder, or an object store such as s3://bucket/path.")
    ],
    repository: Repository = DEFAULT_REPOSITORY,
    as_json: Json = False,
) -> None:
    """Publish the repository's adapters for servers that run with `serve --watch-adapters URL`.

    Each takes them within seconds, asks the new ones for an answer, and goes back to its former ones where that fails.
    """
    with reported_errors():
        found = PublishedAdapters(target).publish(newest := AdapterStore(repository).newest())
    if as_json:
        typer.echo(json.dumps({"url": target, "adapters": newest.model_versions, "sha256": found.adapters}))
        return
    typer.echo(
        f"published to {target}: {', '.join(f'{name} {made_by}' for name, made_by in newest.model_versions.items())}"
    )


def _change(store: AdapterStore, change: Callable[[], Version], url: str | None, *, as_json: bool) -> None:
    with nullcontext() if url is None else _client(url) as client:
        version = promote(store, change, client)
    assert version.change is not None
    name, previous = version.change.adapter, version.change.previous
    made_by = version.model_versions.get(name)
    if as_json:
        facts = {"adapter": name, "version": version.number, "previous": previous, "model_version": made_by}
        typer.echo(json.dumps(facts))
        return
    state = "written; a server that starts serves it" if url is None else "served"
    typer.echo(f"{name} is {made_by or 'gone'}; version {version.number} (before {previous}) is {state}")


@contextmanager
def _exported(adapter: Path, newest: Version, encoder: str | None, generator: str | None) -> Iterator[Path]:
    """The adapter's graph as export writes it; made now where ``adapter`` is not that already."""
    if (adapter / RECORD).is_file():
        yield adapter
        return
    if not adapter.is_dir():
        raise UsageError(f"--adapter {adapter}: no such folder")
    given = {"--encoder": encoder, "--generator": generator, "--precision": newest.adapters[DEFAULT].fits["precision"]}
    options = [str(part) for option in given.items() if option[1] is not None for part in option]
    with tempfile.TemporaryDirectory(prefix="neuro-latent-adapter-") as temporary, StopSignals() as signals:
        output = Path(temporary) / "adapter"
        if not run_export(export_command(adapter, output, "--only-adapter", *options), signals.requested):
            raise typer.Exit(130)
        yield output


@contextmanager
def _client(url: str) -> Iterator[Client]:
    """A client of the server at ``url``, with the secret that a server of this user has left."""
    try:
        access = find_access(url)
        client = Client(access.http, headers={OWN_HEADER: access.secret}) if access else Client(url)
    except InvalidRequestError as error:
        raise UsageError(f"--url: {error}") from None
    with client:
        yield client


def _live_version(url: str) -> int | None:
    """The version of the projector that the server has; None where there is no server."""
    with _client(url) as client:
        try:
            models = client.models(timeout=2.0)
        except NeuroLatentError:
            return None
    ready = [int(model.version) for model in models if model.name == PROJECTOR_MODEL and model.ready]
    return max(ready, default=None)


def _done(version: Version) -> str:
    change = version.change
    if change is None:
        return "exported"
    if change.restores is not None:
        return f"{change.created}  back to {change.restores}"
    return f"{change.created}  {change.action} {change.adapter}"
