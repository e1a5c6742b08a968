"""``neuro-latent serve``."""

import importlib.util
import json
import math
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from neuro_latent_client import Client
from neuro_latent_core.repository import DEFAULT, PROJECTOR
from neuro_latent_serving.command import StopSignals, console, reported_errors
from neuro_latent_serving.errors import ServeError, ServerEndedError, StartError
from neuro_latent_serving.gateway.api_keys import RateLimit
from neuro_latent_serving.gateway.cli import GATEWAY_HINT, make_gateway
from neuro_latent_serving.gateway.config import DEFAULTS as GATEWAY_DEFAULTS
from neuro_latent_serving.gateway.config import (
    AllowedHosts,
    ApiKeysFile,
    CorsOrigins,
    GatewayConfig,
    GatewayHost,
    GatewayPort,
    LogPrompts,
    Rate,
    TrustedProxies,
)
from neuro_latent_serving.launch.binary import find_tritonserver
from neuro_latent_serving.launch.supervisor import ServerConfig, TritonServer
from neuro_latent_serving.repository.check import DEFAULT_REPOSITORY, Manifest, check_repository, newest_adapters
from neuro_latent_serving.repository.export import adapter_weights, export_run, is_exported, refuse_to_drop_adapters
from neuro_latent_serving.repository.records import UNPROBED
from neuro_latent_serving.settings import GUARD_VARIABLE, MIN_CONFIDENCE_VARIABLE
from neuro_latent_serving.threads import THREADS_VARIABLE
from neuro_latent_serving.web.ports import FREE_PORTS, Ports, claim_ports, is_this_machine, numeric_host

if TYPE_CHECKING:
    from neuro_latent_serving.gateway.server import GatewayServer  # its dependencies come with an extra

DEFAULTS = ServerConfig()
FAILED_STARTS = 3
"""How often in a row a server that was ready before may fail to start again: the machine had no time for it, say."""

OPTIMIZER = "neuro_latent_optimizer"
EXAMPLE = {"raw_prompt": "Create a function", "max_length": 200, "num_return_sequences": 1}


def serve(
    repository: Annotated[
        Path | None,
        typer.Option(help="Exported model repository. Default: RUN/repository with --run, else ./repository."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Training run to serve; it is exported first if the repository does not hold its adapter."),
    ] = None,
    http_port: Annotated[int, typer.Option(help="HTTP port; 0 takes any free one.")] = DEFAULTS.ports.http,
    grpc_port: Annotated[int, typer.Option(help="gRPC port; 0 takes any free one.")] = DEFAULTS.ports.grpc,
    metrics_port: Annotated[
        int, typer.Option(help="Port of the Prometheus metrics; 0 takes any free one.")
    ] = DEFAULTS.ports.metrics,
    host: Annotated[
        str, typer.Option(help="IPv4 address to listen on; 0.0.0.0 is every network of this machine.")
    ] = DEFAULTS.host,
    tritonserver: Annotated[
        Path | None,
        typer.Option(help="The tritonserver to run. Default: the one on PATH, else that of nvidia-pytriton."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the hash of every exported graph and tokenizer.")
    ] = False,
    ready_timeout: Annotated[
        float, typer.Option(help="Seconds that the models may take to load.")
    ] = DEFAULTS.ready_timeout,
    drain_timeout: Annotated[
        int, typer.Option(help="Seconds that requests in flight may take to finish when the server stops.")
    ] = DEFAULTS.drain_timeout,
    gateway: Annotated[
        bool, typer.Option("--gateway/--no-gateway", help="Serve the REST API and the page too.")
    ] = True,
    gateway_port: GatewayPort = GATEWAY_DEFAULTS.port,
    gateway_host: GatewayHost = GATEWAY_DEFAULTS.host,
    api_keys: ApiKeysFile = None,
    rate: Rate = GATEWAY_DEFAULTS.rate,
    trusted_proxy: TrustedProxies = None,
    cors_origin: CorsOrigins = None,
    allowed_host: AllowedHosts = None,
    log_prompts: LogPrompts = False,
    threads: Annotated[
        int, typer.Option(min=0, help="Cores that the models may use; 0 is every core that this process may use.")
    ] = 0,
    guard: Annotated[
        bool,
        typer.Option(
            "--guard/--no-guard",
            help="Withhold a text that breaks a rule (a loop, another language, a repeated prompt, a lost or invented "
            "literal), and cut one that is not finished back to whole sentences.",
        ),
    ] = True,
    min_confidence: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Withhold a text that the model is less sure of, unless a request says otherwise; 0 withholds none. "
            "Default: each adapter's own threshold.",
        ),
    ] = None,
    restarts: Annotated[
        int,
        typer.Option(
            min=0,
            help="How often in a minute a server that has ended by itself is started again; after that the next start "
            "waits. 0: never, the command ends.",
        ),
    ] = 3,
    show_log: Annotated[bool, typer.Option("--show-log", help="Copy the server's log to stderr.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the server's log, with a line a request.")] = False,
    log_file: Annotated[
        Path | None,
        typer.Option(help="Append the server's log to this file. Default: a temporary one, kept only on a failure."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="When ready, print one JSON line on stdout; all else goes to stderr.")
    ] = False,
) -> None:
    """Serve an exported model repository on Triton: no Docker and no GPU needed.

    The server is ready when a table of its models and addresses is shown. Ctrl-C or SIGTERM lets the requests in flight
    finish and stops it; a second Ctrl-C stops at once.

    Examples:

    neuro-latent serve --run runs/first

    neuro-latent serve --repository repository --http-port 0 --grpc-port 0 --metrics-port 0 --json

    Exit codes: 0 stopped as asked, 1 failure, 2 wrong usage.
    """
    with reported_errors():
        config = ServerConfig(
            host=host,
            ports=Ports(http_port, grpc_port, metrics_port),
            tritonserver=tritonserver,
            ready_timeout=ready_timeout,
            drain_timeout=drain_timeout,
            verbose=verbose,
            show_log=show_log or verbose,
            log_file=log_file,
            environment={
                **({THREADS_VARIABLE: str(threads)} if threads else {}),
                **({} if guard else {GUARD_VARIABLE: "off"}),
                **({} if min_confidence is None else {MIN_CONFIDENCE_VARIABLE: str(min_confidence)}),
            },
        )
        gateway_config = GatewayConfig(
            host=gateway_host,
            port=gateway_port,
            api_keys=api_keys,
            rate=rate,
            trusted_proxies=tuple(trusted_proxy or ()),
            cors_origins=tuple(cors_origin or ()),
            allowed_hosts=tuple(allowed_host or ()),
            drain_timeout=drain_timeout,
            log_prompts=log_prompts,
            log_file=log_file,
            quiet=not (verbose or log_file),
        )
        if not is_this_machine(numeric_host(host)) and find_tritonserver(tritonserver).stubs is not None:
            console.print(
                f"[yellow]warning:[/] listening on {host}: the tritonserver of nvidia-pytriton is for development, it "
                "lacks the security fixes of Triton 25.07 (CVE-2025-23319); in production use the image of "
                "Dockerfile.triton.",
                soft_wrap=True,
            )
        with ExitStack() as stack, StopSignals() as signals:
            front = None
            if gateway and importlib.util.find_spec("fastapi") is None:
                console.print(
                    f"[yellow]warning:[/] no REST API and no page. {escape(GATEWAY_HINT)}",
                    soft_wrap=True,
                    highlight=False,
                )
            elif gateway:
                front = stack.enter_context(make_gateway(gateway_config, lambda: server.grpc_url))
            repository = repository or (run / "repository" if run else DEFAULT_REPOSITORY)
            if run is not None and not is_exported(adapter_weights(run), repository):
                # What would stop the start is better told before an export than after it.
                find_tritonserver(tritonserver)
                claim_ports(numeric_host(host), config.ports)
                refuse_to_drop_adapters(run, repository)
                console.print(f"exporting {run} to {repository}", soft_wrap=True)
                if not export_run(run, repository, signals.requested):
                    return
            manifest = check_repository(repository, verify=verify)
            server = TritonServer(repository, config)
            budget = RateLimit(restarts) if restarts else None
            failed_starts = FAILED_STARTS  # the first one may not fail
            while True:
                try:
                    supervise(server, front, manifest, signals, as_json=as_json)
                    return
                except (ServerEndedError, StartError) as error:
                    failed_starts = failed_starts + 1 if isinstance(error, StartError) else 0
                    if budget is None or failed_starts > FAILED_STARTS:
                        raise
                    if front is not None:
                        is_stalled = isinstance(error, ServerEndedError) and error.stalled
                        front.metrics.restarts.labels("stalled" if is_stalled else "failed").inc()
                    server = server.again()
                    console.print(f"[yellow]warning:[/] {error.message}", soft_wrap=True, highlight=False)
                    wait = budget.wait_s("")
                    when = f" in {math.ceil(wait)} seconds, for it ended too often in the last minute" if wait else ""
                    console.print(f"starting it again{when}", soft_wrap=True, highlight=False)
                    while wait and not signals.requested():
                        time.sleep(min(wait, 0.1))
                        wait = budget.wait_s("")


def settle_adapters(repository: Path, config: ServerConfig, should_stop: Callable[[], bool]) -> None:
    """Probe adapters that a killed ``neuro-latent adapters`` has published, on a server of our own; withdraw bad ones.

    Raises:
        ServeError: the repository cannot be changed, or the server does not start for another reason.
    """
    if not (repository / PROJECTOR / UNPROBED).exists():
        return
    from neuro_latent_serving.adapters.adapter_store import AdapterStore, StopRequestedError
    from neuro_latent_serving.adapters.promotion import ProbeError, settle

    private = replace(config, host="127.0.0.1", ports=FREE_PORTS, drain_timeout=0, log_file=None)

    def ask(probe: Callable[[Client], None]) -> None:
        server = TritonServer(repository, private)
        try:
            if not server.start(should_stop):
                raise typer.Exit
            with Client(server.grpc_url, retries=0) as client:
                probe(client)
        except ServeError as error:
            if f"model {PROJECTOR}:" in error.message:
                raise ProbeError(error.message) from error
            raise
        finally:
            server.stop(lambda: True)

    console.print("probing the adapters of a change that was broken off", highlight=False)
    try:
        withdrawn = settle(AdapterStore(repository, should_stop), ask)
    except StopRequestedError:
        raise typer.Exit from None
    for number in withdrawn:
        console.print(
            f"[yellow]warning:[/] version {number} of the adapters does not answer and is withdrawn; "
            "add its adapter again",
            soft_wrap=True,
            highlight=False,
        )


def supervise(
    server: TritonServer, front: "GatewayServer | None", manifest: Manifest, signals: StopSignals, *, as_json: bool
) -> None:
    """Start the server and what stands in front of it, tell what they serve, and stop them when asked.

    A gateway outlives a server that has ended by itself: it tells its callers to come again.

    Raises:
        ServerEndedError: it has ended by itself.
    """
    settle_adapters(server.repository, server.config, signals.requested)
    ends = math.inf  # the whole stop's, the gateway's included

    def out_of_time() -> bool:
        return signals.insisted() or time.monotonic() > ends

    with ExitStack() as stack:
        stack.callback(server.stop, out_of_time)
        with console.status("starting tritonserver and loading the models"):
            if not server.start(signals.requested):
                console.print("stopped before the models were loaded")
                return
        if front is not None:
            front.start()
        adapters = adapter_versions(server.repository, manifest)
        show(server, front, adapters)
        if as_json:
            sys.stdout.write(json.dumps(facts(server, front, adapters)) + "\n")
            sys.stdout.flush()
        while not signals.requested():
            server.check()
            if front is not None:
                front.check()
            time.sleep(0.1)
        console.print("stopping: requests in flight finish first; Ctrl-C again stops at once")
        ends = time.monotonic() + server.config.drain_timeout + server.config.kill_after
        if front is not None:
            front.stop(signals.insisted)


def adapter_versions(repository: Path, manifest: Manifest) -> dict[str, str]:
    """The version of each adapter that a server which starts now serves, by name."""
    try:
        return {name: record.model_version for name, record in newest_adapters(repository).items()}
    except OSError:  # a repository without adapters
        return {DEFAULT: manifest.model_version}


def show(server: TritonServer, front: "GatewayServer | None", adapters: dict[str, str]) -> None:
    """The table of what is served, and how to call and stop it."""
    console.print(f"Triton {server.version}, ready in {server.start_seconds:.1f} s", highlight=False)
    table = Table()
    table.add_column("model")
    table.add_column("version", justify="right")
    for model in server.models:
        table.add_row(model.name, model.version)
    console.print(table)
    lines = [
        *(f"adapter  {version}{'' if name == DEFAULT else f'  ({name})'}" for name, version in adapters.items()),
        *([f"page     {front.url}  (the REST API: {front.url}/docs)"] if front else []),
        f"HTTP     {server.http_url}",
        f"gRPC     {server.grpc_url}",
        f"metrics  {server.metrics_url}",
        f"log      {server.log_file}",
    ]
    if any(model.name == OPTIMIZER for model in server.models):
        body = json.dumps(EXAMPLE, separators=(",", ":"))
        lines += ["", f"curl -s -d '{body}' {server.http_address}/v2/models/{OPTIMIZER}/generate"]
    lines += ["", "Ctrl-C stops it"]
    console.print("\n".join(lines), soft_wrap=True, markup=False, highlight=False)


def facts(server: TritonServer, front: "GatewayServer | None", adapters: dict[str, str]) -> dict[str, Any]:
    """What a program that started us wants to know."""
    return {
        "server": "triton",
        "version": server.version,
        "model_version": adapters[DEFAULT],
        "adapters": adapters,
        "http": server.http_url,
        "grpc": server.grpc_url,
        "metrics": server.metrics_url,
        "gateway": front.url if front else None,
        "models": [asdict(model) for model in server.models],
        "pid": server.pid,
        "start_seconds": round(server.start_seconds, 3),
    }
