"""``neuro-latent doctor``."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from neuro_latent_serving.command import reported_errors
from neuro_latent_serving.doctor import installation
from neuro_latent_serving.doctor.findings import ERROR, WARNING, Outcome, count, examine, facts, show
from neuro_latent_serving.doctor.repository_checks import check_device, check_files, python_models
from neuro_latent_serving.gateway.config import DEFAULTS as GATEWAY_DEFAULTS
from neuro_latent_serving.gateway.config import GatewayConfig, GatewayHost, GatewayPort
from neuro_latent_serving.launch.cli import DEFAULTS
from neuro_latent_serving.web.ports import Ports


def doctor(
    repository: Annotated[
        Path | None, typer.Option(help="Exported model repository to examine too.", metavar="REPO")
    ] = None,
    http_port: Annotated[int, typer.Option(help="HTTP port that a server would have; 0: any.")] = DEFAULTS.ports.http,
    grpc_port: Annotated[int, typer.Option(help="gRPC port; 0: any.")] = DEFAULTS.ports.grpc,
    metrics_port: Annotated[int, typer.Option(help="Port of the metrics; 0: any.")] = DEFAULTS.ports.metrics,
    host: Annotated[str, typer.Option(help="IPv4 address that it would listen on.")] = DEFAULTS.host,
    gateway_host: GatewayHost = GATEWAY_DEFAULTS.host,
    gateway_port: GatewayPort = GATEWAY_DEFAULTS.port,
    tritonserver: Annotated[
        Path | None,
        typer.Option(help="The tritonserver to examine. Default: the one on PATH, else that of nvidia-pytriton."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Compare the hash of every exported file, or its size alone.")
    ] = True,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors for the exit code.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON line on stdout; the list goes to stderr.")
    ] = False,
) -> None:
    """Examine an installation, and a model repository; say what is wrong and how to mend it. It changes nothing.

    docs/doctor.md lists all that it can find, by id.

    Exit codes: 0 no error (with --strict: no warning either), 1 errors, 2 wrong usage.
    """
    with reported_errors():
        ports, gateway_port = Ports(http_port, grpc_port, metrics_port), GatewayConfig(port=gateway_port).port
        root = repository.absolute() if repository else None
        checks: dict[str, Iterator[Outcome]] = {
            "versions": installation.check_versions(),
            "server": installation.check_server(tritonserver, host),
            "machine": installation.check_shared_memory(python_models(root).values() if root else ()),
            "ports": installation.check_ports(host, ports, gateway_host, gateway_port),
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
