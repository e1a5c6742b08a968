"""``neuro-latent serve``."""

import importlib.util
import json
import math
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from neuro_latent_client import Client
from neuro_latent_core.protocol import UNARY_MODEL
from neuro_latent_core.repository import DEFAULT, PROJECTOR
from neuro_latent_serving.adapters.published import PublishedAdapters
from neuro_latent_serving.command import StopSignals, console, reported_errors, warn
from neuro_latent_serving.errors import ServeError, ServerEndedError, StartError
from neuro_latent_serving.gateway.api_keys import RateLimit
from neuro_latent_serving.gateway.cli import GATEWAY_HINT, make_gateway
from neuro_latent_serving.gateway.config import UPSTREAM, GatewayConfig
from neuro_latent_serving.launch.adapter_watch import AdapterWatch, with_own_adapters
from neuro_latent_serving.launch.binary import find_tritonserver
from neuro_latent_serving.launch.triton_server import ServerConfig, TritonServer
from neuro_latent_serving.options import given, takes
from neuro_latent_serving.repository.check import DEFAULT_REPOSITORY, Manifest, check_repository, newest_adapters
from neuro_latent_serving.repository.export import adapter_weights, export_run, is_exported, refuse_to_drop_adapters
from neuro_latent_serving.repository.records import UNPROBED
from neuro_latent_serving.settings import CACHE_MB, CACHE_VARIABLE, GUARD_VARIABLE, MIN_CONFIDENCE_VARIABLE
from neuro_latent_serving.threads import THREADS_VARIABLE
from neuro_latent_serving.web.ports import FREE_PORTS, Ports, claim_ports, is_this_machine, numeric_host

if TYPE_CHECKING:
    from neuro_latent_serving.gateway.server import GatewayServer  # its dependencies come with an extra

FAILED_STARTS = 3
"""How often in a row a server that was ready before may fail to start again: the machine had no time for it, say."""

EXAMPLE = {"raw_prompt": "Create a function", "max_length": 200, "num_return_sequences": 1}


@takes(Ports, after="run")
@takes(ServerConfig, "host", "tritonserver", after="run")
@takes(ServerConfig, "ready_timeout", "drain_timeout", after="verify")
@takes(GatewayConfig, "port", "metrics_port", "host", "api_keys", "rate", after="gateway")
@takes(GatewayConfig, "trusted_proxies", "cors_origins", "allowed_hosts", "log_prompts", *UPSTREAM, after="gateway")
@takes(ServerConfig, "show_log", "verbose", "log_file", after="restarts")
def serve(
    repository: Annotated[
        Path | None,
        typer.Option(help="Exported model repository. Default: RUN/repository with --run, else ./repository."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Training run to serve; it is exported first if the repository does not hold its adapter."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the hash of every exported graph and tokenizer.")
    ] = False,
    gateway: Annotated[
        bool, typer.Option("--gateway/--no-gateway", help="Serve the REST API and the page too.")
    ] = True,
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
    cache_mb: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Megabytes of each of three caches (encoder, T5 encoder, whole greedy answers), which answer what was "
            f"asked before; 0 switches them off. Default: {CACHE_MB}.",
        ),
    ] = None,
    watch_adapters: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Take new adapters while serving, from where `adapters publish` puts them: a folder, or an object "
            "store that fsspec reads, such as s3://bucket/adapters. The repository itself stays as it is.",
        ),
    ] = None,
    watch_every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks at what is published.")] = 10.0,
    restarts: Annotated[
        int,
        typer.Option(
            min=0,
            help="How often in a minute a server that has ended by itself is started again; after that the next start "
            "waits. 0: never, the command ends.",
        ),
    ] = 3,
    as_json: Annotated[
        bool, typer.Option("--json", help="When ready, print one JSON line on stdout; all else goes to stderr.")
    ] = False,
    **options: Any,
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
            **given(ServerConfig, options | {"show_log": options["show_log"] or options["verbose"]}),
            ports=Ports(**given(Ports, options)),
            takes_adapters=watch_adapters is not None,
            environment={
                **({THREADS_VARIABLE: str(threads)} if threads else {}),
                **({} if guard else {GUARD_VARIABLE: "off"}),
                **({} if cache_mb is None else {CACHE_VARIABLE: str(cache_mb)}),
                **({} if min_confidence is None else {MIN_CONFIDENCE_VARIABLE: str(min_confidence)}),
            },
        )
        quiet = not (config.verbose or config.log_file)
        gateway_config = GatewayConfig(**given(GatewayConfig, options), quiet=quiet)
        host = numeric_host(config.host)
        if not is_this_machine(host) and find_tritonserver(config.tritonserver).stubs is not None:
            warn(
                f"listening on {config.host}: the tritonserver of nvidia-pytriton is for development, it lacks the "
                "security fixes of Triton 25.07 (CVE-2025-23319); in production use the image of Dockerfile.triton."
            )
        with ExitStack() as stack, StopSignals() as signals:
            front = None
            if gateway and importlib.util.find_spec("fastapi") is None:
                warn(f"no REST API and no page. {GATEWAY_HINT}")
            elif gateway:
                front = stack.enter_context(make_gateway(gateway_config, lambda: server.grpc_url))
            repository = repository or (run / "repository" if run else DEFAULT_REPOSITORY)
            if run is not None and not is_exported(adapter_weights(run), repository):
                # What would stop the start is better told before an export than after it.
                find_tritonserver(config.tritonserver)
                claim_ports(host, config.ports)
                refuse_to_drop_adapters(run, repository)
                console.print(f"exporting {run} to {repository}", soft_wrap=True)
                if not export_run(run, repository, signals.requested):
                    return
            manifest = check_repository(repository, verify=verify)
            watch: Callable[[TritonServer], AdapterWatch] | None = None
            if watch_adapters is not None:
                published = PublishedAdapters(watch_adapters)
                repository = stack.enter_context(with_own_adapters(repository))
                watch = partial(AdapterWatch, published, every_s=watch_every, should_stop=signals.requested)
            server = TritonServer(repository, config)
            serve_with_restarts(server, front, manifest, signals, restarts, watch, as_json=as_json)


def serve_with_restarts(
    server: TritonServer,
    front: "GatewayServer | None",
    manifest: Manifest,
    signals: StopSignals,
    restarts: int,
    watch: Callable[[TritonServer], AdapterWatch] | None = None,
    *,
    as_json: bool,
) -> None:
    """Serve until asked to stop; start a server again that has ended by itself, ``restarts`` times a minute at most.

    Raises:
        ServerEndedError: it may not be started again.
        StartError: the first start failed, or too many in a row.
    """
    budget = RateLimit(restarts) if restarts else None
    failed_starts = FAILED_STARTS  # the first one may not fail
    while True:
        try:
            serve_once(server, front, manifest, signals, watch, as_json=as_json)
            return
        except (ServerEndedError, StartError) as error:
            failed_starts = failed_starts + 1 if isinstance(error, StartError) else 0
            if budget is None or failed_starts > FAILED_STARTS:
                raise
            if front is not None:
                is_stalled = isinstance(error, ServerEndedError) and error.stalled
                front.metrics.restarts.labels("stalled" if is_stalled else "failed").inc()
            server = server.successor()
            warn(error.message)
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
        warn(f"version {number} of the adapters does not answer and is withdrawn; add its adapter again")


def serve_once(
    server: TritonServer,
    front: "GatewayServer | None",
    manifest: Manifest,
    signals: StopSignals,
    watch: Callable[[TritonServer], AdapterWatch] | None = None,
    *,
    as_json: bool,
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
        if watch is not None:
            watching = watch(server)
            stack.callback(watching.close)
            watching.start()
            server.admit()
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
    if any(model.name == UNARY_MODEL for model in server.models):
        body = json.dumps(EXAMPLE, separators=(",", ":"))
        lines += ["", f"curl -s -d '{body}' {server.http_address}/v2/models/{UNARY_MODEL}/generate"]
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
        "gateway_metrics": front.metrics_url if front else None,
        "models": [asdict(model) for model in server.models],
        "pid": server.pid,
        "start_seconds": round(server.start_seconds, 3),
    }
