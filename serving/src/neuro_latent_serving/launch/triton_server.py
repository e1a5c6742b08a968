"""One Triton server: started, waited for until it is ready, and drained when it stops."""

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field

from neuro_latent_client import Client, NeuroLatentError
from neuro_latent_core.protocol import OWN_HEADER, STREAM_MODEL, UNARY_MODEL
from neuro_latent_core.repository import hold
from neuro_latent_serving.adapters.access import ServerAccess
from neuro_latent_serving.errors import ServeError, ServerEndedError, StartError
from neuro_latent_serving.launch.backends import prepare_backends
from neuro_latent_serving.launch.binary import find_tritonserver
from neuro_latent_serving.launch.front import Front
from neuro_latent_serving.launch.health import HealthProbe, ReadyModel
from neuro_latent_serving.launch.logs import LogFollower, failure_lines
from neuro_latent_serving.launch.process import (
    LOG,
    RUN_PREFIX,
    SHM_PREFIX,
    ServerProcess,
    remove_leftovers,
    server_environment,
    server_options,
    temporary_folder,
)
from neuro_latent_serving.launch.watchdog import STALLED
from neuro_latent_serving.options import LogFile, checked
from neuro_latent_serving.repository.check import model_names
from neuro_latent_serving.web.asgi import AsgiServer
from neuro_latent_serving.web.ports import Ports, claim_ports, is_this_machine, numeric_host

__all__ = ["ReadyModel", "ServerConfig", "TritonServer"]

POLL_SECONDS = 0.05

REPOSITORY = "repository"
"""A link to the repository, in the run folder."""
HTTP_SOCKET = "http"
LAST_BYTES_S = 2  # to pass on what Triton has written before it ended
KEEP_ALIVE_S = 75  # longer than clients keep connections that they do not use

WARM_UP_PROMPT = "Create a function that sorts a list of numbers"
WARM_UP_TOKENS = 8
WARM_UP_ROUNDS = 3
WARM_UP_TIMEOUT_S = 10.0


def never() -> bool:
    """The default of every ``should_stop``: nobody asks."""
    return False


@checked
class ServerConfig:
    """How a server is started and stopped. Times are in seconds.

    Attributes:
        kill_after: on top of ``drain_timeout``; then the server is killed.
        takes_adapters: :meth:`TritonServer.owner` loads adapters, also where it listens on a network.
        environment: for the server and its python models.
        arguments: more options of tritonserver.

    Raises:
        UsageError: a value is outside its range; the message names its option.
    """

    host: Annotated[str, typer.Option(help="IPv4 address to listen on; 0.0.0.0 is every network of this machine.")] = (
        "127.0.0.1"
    )
    ports: Ports = Ports()
    tritonserver: Annotated[
        Path | None,
        typer.Option(help="The program tritonserver. Default: the one on PATH, else that of nvidia-pytriton."),
    ] = None
    ready_timeout: Annotated[float, Field(gt=0), typer.Option(help="Seconds that the models may take to load.")] = 120.0
    drain_timeout: Annotated[
        int,
        Field(ge=0),
        typer.Option(help="Seconds that requests in flight may take to finish when the server stops."),
    ] = 30
    kill_after: float = 5.0
    show_log: Annotated[bool, typer.Option("--show-log", help="Copy the server's log to stderr.")] = False
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the server's log, with a line a request.")] = False
    log_file: Annotated[
        LogFile | None,
        typer.Option(help="Append the server's log to this file. Default: a temporary one, kept only on a failure."),
    ] = None
    takes_adapters: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()


class TritonServer:
    """A tritonserver that serves ``repository``; as a context manager it is ready inside the block.

    ``models`` are the models to wait for; by default all that the repository has. The object is for one start.
    """

    def __init__(
        self, repository: Path, config: ServerConfig | None = None, *, models: tuple[str, ...] | None = None
    ) -> None:
        self.repository = repository.absolute()
        self.config = config or ServerConfig()
        self.ports = self.config.ports
        self.version = ""
        self.models: tuple[ReadyModel, ...] = ()
        self.start_seconds = 0.0
        self._expected = models
        self._process: ServerProcess | None = None
        self._run_dir: Path | None = None
        self._run_fd = -1
        self._access: ServerAccess | None = None
        self._front: AsgiServer | None = None
        self._front_app: Front | None = None
        self._log_start = 0
        self._keep_log = False
        self._opened = ExitStack()

    def __enter__(self) -> "TritonServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def connect_host(self) -> str:
        """Where a client on this machine reaches the server."""
        return "127.0.0.1" if self.config.host == "0.0.0.0" else self.config.host

    @property
    def http_address(self) -> str:
        """``host:port``, as tritonclient.http takes it."""
        return f"{self.connect_host}:{self.ports.http}"

    @property
    def grpc_address(self) -> str:
        """``host:port``, as tritonclient.grpc takes it."""
        return f"{self.connect_host}:{self.ports.grpc}"

    @property
    def http_url(self) -> str:
        return f"http://{self.http_address}"

    @property
    def grpc_url(self) -> str:
        return f"grpc://{self.grpc_address}"

    @property
    def metrics_url(self) -> str:
        return f"http://{self.connect_host}:{self.ports.metrics}/metrics"

    @property
    def pid(self) -> int:
        """Process id of tritonserver."""
        return self._running().pid

    @property
    def log_file(self) -> Path:
        """Where the output of the server and of its models goes."""
        if self.config.log_file is not None:
            return self.config.log_file.absolute()
        if self._run_dir is None:
            raise ServeError("the server has not been started")
        return self._run_dir / LOG

    def start(self, should_stop: Callable[[], bool] = never) -> bool:
        """Start and wait until every model is ready; False when ``should_stop`` said so before. Fails with its reason.

        A server that is not ready at the end of this call is not left running.
        """
        began = time.monotonic()
        try:
            self._launch()
            if not self._wait_until_ready(began + self.config.ready_timeout, should_stop):
                self.stop(lambda: True)
                return False
            self._warm_up()
            health = self._health()
            self.version, self.models = health.version(), health.models()
            self._leave_access()
        except BaseException as error:
            self._keep_log = isinstance(error, ServeError) and self._process is not None
            self._opened.close()
            if isinstance(error, OSError):
                raise StartError(f"the server cannot be started: {error}", "Is its disk full?") from error
            raise
        self.start_seconds = time.monotonic() - began
        return True

    def owner(self) -> Client:
        """A client of the running server that may do what is closed to others."""
        self._running()
        assert self._access is not None
        return Client(self.http_url, headers={OWN_HEADER: self._access.secret})

    def admit(self) -> None:
        """Say over HTTP that the server is ready; one that takes adapters says so only then."""
        assert self._front_app is not None
        self._front_app.held_back = False

    def check(self) -> None:
        """Raise a ServerEndedError when the server has ended by itself, a ServeError when its port has."""
        code = self._running().poll()
        if code is None and self._front is not None:
            self._front.check()
        if code is not None:
            self._keep_log = True
            self._opened.close()
            failure = self._failure(f"tritonserver ended by itself ({exit_text(code)})")
            raise ServerEndedError(*failure, stalled=STALLED in self.log_text())

    def successor(self) -> "TritonServer":
        """A server like this one, for the same ports; to be started when this one has ended."""
        return TritonServer(self.repository, replace(self.config, ports=self.ports), models=self._expected)

    def stop(self, force: Callable[[], bool] = never) -> None:
        """Let requests in flight finish, then end the server; kill it after the stated time or once ``force`` is true.

        Safe to call twice, and before the start.
        """
        process = self._process
        try:
            if process is not None and not force():
                process.terminate()
                deadline = time.monotonic() + self.config.drain_timeout + self.config.kill_after
                while process.wait(POLL_SECONDS) is None and time.monotonic() < deadline and not force():
                    pass
        finally:
            self._opened.close()

    def log_text(self) -> str:
        """What this server has written."""
        with self.log_file.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def _launch(self) -> None:
        if self._run_dir is not None:
            raise ServeError("this TritonServer was started before", "Make a new one for another start.")
        if self._expected is None:
            self._expected = model_names(self.repository)
        binary = find_tritonserver(self.config.tritonserver)
        host = numeric_host(self.config.host)
        self.ports = claim_ports(host, self.config.ports)
        self._run_dir = Path(tempfile.mkdtemp(prefix=RUN_PREFIX, dir=temporary_folder()))
        self._opened.callback(self._remove_run_dir, self._run_dir)
        remove_leftovers(self._run_dir.parent)
        # Whatever characters its path has, Triton and its shell see this one.
        link = self._run_dir / REPOSITORY
        link.symlink_to(self.repository)
        self._run_fd = os.open(self._run_dir, os.O_PATH)
        self._opened.callback(os.close, self._run_fd)
        self._opened.callback(os.close, hold(self.repository))
        self._open_http(host)
        binary = prepare_backends(binary, self._run_dir)
        shm_prefix = f"{SHM_PREFIX}{uuid.uuid4().hex[:12]}-"
        self.log_file.touch(mode=0o600)
        self._log_start = self.log_file.stat().st_size
        if self.config.show_log:
            self._opened.callback(LogFollower(self.log_file, self._log_start).close)
        self._process = ServerProcess(
            [str(binary.path), *self._options(host, link, binary.backends, shm_prefix), *self.config.arguments],
            server_environment({**binary.environment, **self.config.environment}),
            self.log_file,
            self._run_dir,
            shm_prefix,
        )
        self._opened.callback(self._process.close)
        self._opened.callback(self._process.kill)

    def _options(self, host: str, repository: Path, backends: Path, shm_prefix: str) -> list[str]:
        """Those of tritonserver. HTTP is on a socket that nobody else reaches; ``front.py`` listens on its port."""
        return [
            f"--model-repository={repository}",
            f"--backend-directory={backends}",
            f"--http-address=unix:{self._http_socket}",
            f"--grpc-address={host}",
            f"--metrics-address={host}",
            f"--http-port={self.ports.http}",
            f"--grpc-port={self.ports.grpc}",
            f"--metrics-port={self.ports.metrics}",
            "--reuse-grpc-port=false",
            "--disable-auto-complete-config",
            "--exit-on-error=true",
            f"--exit-timeout-secs={self.config.drain_timeout}",
            f"--log-verbose={int(self.config.verbose)}",
            f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
            *server_options(host, self.config.takes_adapters),
        ]

    def _wait_until_ready(self, deadline: float, should_stop: Callable[[], bool]) -> bool:
        health, process, expected = self._health(), self._running(), self._expected or ()
        while not should_stop():
            code = process.poll()
            if code is not None:
                raise StartError(*self._failure(f"tritonserver did not start ({exit_text(code)})"))
            waiting = health.waiting_for(expected)
            if waiting is None:
                return True
            if time.monotonic() > deadline:
                what = f"{waiting} was not ready within {self.config.ready_timeout:g} seconds"
                raise StartError(*self._failure(what, "Give it more time with --ready-timeout SECONDS."))
            time.sleep(POLL_SECONDS)
        return False

    def _warm_up(self) -> None:
        """Ask for a few answers: the first requests also pay for what Triton itself sets up on the way."""
        if not {UNARY_MODEL, STREAM_MODEL} <= set(self._expected or ()):
            return
        with Client(self.grpc_url, timeout=WARM_UP_TIMEOUT_S) as client, suppress(NeuroLatentError):
            for _ in range(WARM_UP_ROUNDS):
                client.optimize(WARM_UP_PROMPT, max_length=WARM_UP_TOKENS)
                with client.stream(WARM_UP_PROMPT, max_length=WARM_UP_TOKENS) as stream:
                    for _piece in stream:
                        pass

    def _failure(self, what: str, hint: str = "") -> tuple[str, str]:
        """Message and hint of an error, with the lines of the log that say why."""
        text = self.log_text()
        if self._run_dir is not None:
            text = text.replace(str(self._run_dir / REPOSITORY), str(self.repository))
        lines = failure_lines(text)
        message = "\n  ".join([f"{what}:", *lines]) if lines else what
        return message, f"{hint} The whole log: {self.log_file}".strip()

    def _remove_run_dir(self, run_dir: Path) -> None:
        """Remove the run folder, but for the log, if it is to be read."""
        if not self._keep_log or self.config.log_file is not None:
            shutil.rmtree(run_dir, ignore_errors=True)
            return
        for path in run_dir.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != LOG:
                path.unlink()

    def _health(self) -> HealthProbe:
        return HealthProbe(self._http_socket)

    @property
    def _http_socket(self) -> str:
        """Triton's own HTTP, in the run folder; by its descriptor, because a socket's path is limited to 107 bytes."""
        return f"/proc/{os.getpid()}/fd/{self._run_fd}/{HTTP_SOCKET}"

    def _open_http(self, host: str) -> None:
        self._access = ServerAccess(self.http_url, self.grpc_url)
        self._front_app = Front(self._http_socket, self._access.secret, any_host=not is_this_machine(host))
        self._front_app.held_back = self.config.takes_adapters
        self._front = AsgiServer(
            self._front_app,
            "http",
            host,
            self.ports.http,
            lifespan="off",
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        self._opened.callback(self._stop_front, self._front)
        self._front.start()

    @staticmethod
    def _stop_front(front: AsgiServer) -> None:
        deadline = time.monotonic() + LAST_BYTES_S
        front.stop(lambda: time.monotonic() > deadline)

    def _leave_access(self) -> None:
        """For ``neuro-latent adapters``; a server that listens on a network loads nothing, so it needs none."""
        if self._access is not None and is_this_machine(numeric_host(self.config.host)):
            with suppress(OSError):  # adapters then says where it has looked
                self._opened.callback(self._access.remove)
                self._access.write()

    def _running(self) -> ServerProcess:
        if self._process is None:
            raise ServeError("the server has not been started")
        return self._process


def exit_text(code: int) -> str:
    """An exit code in words."""
    return f"signal {code - 128}" if code > 128 else f"exit code {code}"
