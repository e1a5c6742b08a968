"""``neuro-latent doctor``."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from neuro_latent_serving.command import reported_errors
from neuro_latent_serving.doctor import installation
from neuro_latent_serving.doctor.findings import ERROR, WARNING, Outcome, count, examine, facts, show
from neuro_latent_serving.doctor.repository_checks import check_device, check_files, python_models
from neuro_latent_serving.gateway.config import GatewayConfig
from neuro_latent_serving.launch.triton_server import ServerConfig
from neuro_latent_serving.options import given, takes
from neuro_latent_serving.web.ports import Ports


@takes(Ports, after="repository")
@takes(ServerConfig, "host", after="repository")
@takes(GatewayConfig, "host", "port", after="repository")
@takes(ServerConfig, "tritonserver", after="repository")
def doctor(
    repository: Annotated[
        Path | None, typer.Option(help="Exported model repository to examine too.", metavar="REPO")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Compare the hash of every exported file, or its size alone.")
    ] = True,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors for the exit code.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON line on stdout; the list goes to stderr.")
    ] = False,
    **options: Any,
) -> None:
    """Examine an installation, and a model repository; say what is wrong and how to mend it. It changes nothing.

    docs/doctor.md lists all that it can find, by id.

    Exit codes: 0 no error (with --strict: no warning either), 1 errors, 2 wrong usage.
    """
    with reported_errors():
        ports, server = Ports(**given(Ports, options)), ServerConfig(**given(ServerConfig, options))
        gateway = GatewayConfig(**given(GatewayConfig, options))
        root = repository.absolute() if repository else None
        checks: dict[str, Iterator[Outcome]] = {
            "versions": installation.check_versions(),
            "server": installation.check_server(server.tritonserver, server.host),
            "machine": installation.check_shared_memory(python_models(root).values() if root else ()),
            "ports": installation.check_ports(server.host, ports, gateway.host, gateway.port),
        }
        if root is not None:
            checks |= {"device": check_device(root), "files": check_files(root, verify=verify)}
        groups = {name: list(examine(name, outcomes)) for name, outcomes in checks.items()}
    found = count(groups)
    exit_code = int(bool(found[ERROR] or (strict and found[WARNING])))
    show(groups, Console(stderr=as_json, highlight=False, soft_wrap=False))
    if as_json:
        typer.echo(json.dumps(facts(groups, exit_code)))
    raise typer.Exit(exit_code)
