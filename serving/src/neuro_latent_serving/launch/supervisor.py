"""One Triton server: started, waited for until it is ready, and drained when it stops."""

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from neuro_latent_client import Client, NeuroLatentError
from neuro_latent_core.protocol import STREAM_MODEL, UNARY_MODEL
from neuro_latent_core.repository import hold
from neuro_latent_serving.adapters.access import ServerAccess
from neuro_latent_serving.errors import ServeError, ServerEndedError, StartError, UsageError
from neuro_latent_serving.launch.backends import prepare_backends
from neuro_latent_serving.launch.binary import TritonBinary, find_tritonserver
from neuro_latent_serving.launch.front import Front
from neuro_latent_serving.launch.health import HealthProbe, ReadyModel
from neuro_latent_serving.launch.logs import LogFollower, failure_lines
from neuro_latent_serving.launch.process import (
    LOG,
    RUN_PREFIX,
    SHM_PREFIX,
    ServerProcess,
    remove_leftovers,
    server_arguments,
    server_environment,
    temporary_folder,
)
from neuro_latent_serving.launch.watchdog import STALLED
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


@dataclass(frozen=True)
class ServerConfig:
    """How a server is started and stopped. Times are in seconds."""

    host: str = "127.0.0.1"
    ports: Ports = field(default_factory=Ports)
    tritonserver: Path | None = None  # None: found on the PATH or in the wheel
    ready_timeout: float = 120.0
    drain_timeout: int = 30  # for requests in flight when the server is asked to stop
    kill_after: float = 5.0  # on top of drain_timeout; then the server is killed
    verbose: bool = False  # a line a request in the server's log
    show_log: bool = False  # copy the server's log to stderr
    log_file: Path | None = None  # None: in a temporary folder that is removed, unless the server fails
    environment: Mapping[str, str] = field(default_factory=dict)  # for the server and its python models
    arguments: tuple[str, ...] = ()  # more options of tritonserver

    def __post_init__(self) -> None:
        if self.ready_timeout <= 0:
            raise UsageError(f"--ready-timeout {self.ready_timeout:g}: must be more than 0 seconds")
        if self.drain_timeout < 0:
            raise UsageError(f"--drain-timeout {self.drain_timeout}: must be 0 seconds or more")
        if self.log_file is not None and (self.log_file.is_dir() or not self.log_file.absolute().parent.is_dir()):
            raise UsageError(f"--log-file {self.log_file}: not a file in an existing folder")


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
        self.binary: TritonBinary | None = None
        self.version = ""
        self.models: tuple[ReadyModel, ...] = ()
        self.start_seconds = 0.0
        self._expected = models
        self._process: ServerProcess | None = None
        self._run_dir: Path | None = None
        self._run_fd = self._repository_fd = -1
        self._access: ServerAccess | None = None
        self._front: AsgiServer | None = None
        self._log_start = 0
        self._follower: LogFollower | None = None
        self._ended = False

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
            self._end(keep_log=isinstance(error, ServeError) and self._process is not None)
            if isinstance(error, OSError):
                raise StartError(f"the server cannot be started: {error}", "Is its disk full?") from error
            raise
        self.start_seconds = time.monotonic() - began
        return True

    def check(self) -> None:
        """Raise a ServerEndedError when the server has ended by itself, a ServeError when its port has."""
        code = self._running().poll()
        if code is None and self._front is not None:
            self._front.check()
        if code is not None:
            self._end(keep_log=True)
            error = self._failure(f"tritonserver ended by itself ({exit_text(code)})")
            raise ServerEndedError(error.message, error.hint, stalled=STALLED in self.log_text())

    def again(self) -> "TritonServer":
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
            self._end(keep_log=False)

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
        self.binary = find_tritonserver(self.config.tritonserver)
        host = numeric_host(self.config.host)
        self.ports = claim_ports(host, self.config.ports)
        self._run_dir = Path(tempfile.mkdtemp(prefix=RUN_PREFIX, dir=temporary_folder()))
        remove_leftovers(self._run_dir.parent)
        # Whatever characters its path has, Triton and its shell see this one.
        link = self._run_dir / REPOSITORY
        link.symlink_to(self.repository)
        self._run_fd = os.open(self._run_dir, os.O_PATH)
        self._repository_fd = hold(self.repository)
        self._open_http(host)
        backends = prepare_backends(self.binary, self._run_dir)
        shm_prefix = f"{SHM_PREFIX}{uuid.uuid4().hex[:12]}-"
        arguments = server_arguments(
            repository=link,
            backends=backends.folder,
            host=host,
            http_socket=self._http_socket,
            ports=self.ports,
            shm_prefix=shm_prefix,
            drain_seconds=self.config.drain_timeout,
            verbose=self.config.verbose,
        )
        self.log_file.touch(mode=0o600)
        self._log_start = self.log_file.stat().st_size
        self._process = ServerProcess(
            [str(self.binary.path), *arguments, *self.config.arguments],
            server_environment({**backends.environment, **self.config.environment}),
            self.log_file,
            self._run_dir,
            shm_prefix,
        )
        if self.config.show_log:
            self._follower = LogFollower(self.log_file, self._log_start)

    def _wait_until_ready(self, deadline: float, should_stop: Callable[[], bool]) -> bool:
        health, process, expected = self._health(), self._running(), self._expected or ()
        while not should_stop():
            code = process.poll()
            if code is not None:
                error = self._failure(f"tritonserver did not start ({exit_text(code)})")
                raise StartError(error.message, error.hint)
            waiting = health.waiting_for(expected)
            if waiting is None:
                return True
            if time.monotonic() > deadline:
                error = self._failure(
                    f"{waiting} was not ready within {self.config.ready_timeout:g} seconds",
                    "Give it more time with --ready-timeout SECONDS.",
                )
                raise StartError(error.message, error.hint)
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

    def _failure(self, what: str, hint: str = "") -> ServeError:
        text = self.log_text()
        if self._run_dir is not None:
            text = text.replace(str(self._run_dir / REPOSITORY), str(self.repository))
        lines = failure_lines(text)
        message = "\n  ".join([f"{what}:", *lines]) if lines else what
        return ServeError(message, f"{hint} The whole log: {self.log_file}".strip())

    def _end(self, *, keep_log: bool) -> None:
        """End the process if it runs, and remove the run folder (but for the log, if it is to be read). Once."""
        if self._ended:
            return
        self._ended = True
        if self._access is not None:
            self._access.remove()
        if self._process is not None:
            self._process.kill()
            self._process.close()
        if self._front is not None:
            deadline = time.monotonic() + LAST_BYTES_S
            self._front.stop(lambda: time.monotonic() > deadline)
        if self._run_fd >= 0:
            with suppress(FileNotFoundError):
                os.unlink(HTTP_SOCKET, dir_fd=self._run_fd)
            os.close(self._run_fd)
        if self._repository_fd >= 0:
            os.close(self._repository_fd)
        if self._follower is not None:
            self._follower.close()
        if self._run_dir is not None and not keep_log:
            shutil.rmtree(self._run_dir, ignore_errors=True)
        elif self._run_dir is not None:
            for name in ("backends", "lib", REPOSITORY):
                path = self._run_dir / name
                if path.is_symlink():
                    path.unlink()
                else:
                    shutil.rmtree(path, ignore_errors=True)
            if self.config.log_file is not None:
                with suppress(OSError):
                    self._run_dir.rmdir()

    def _health(self) -> HealthProbe:
        return HealthProbe(path=self._http_socket)

    @property
    def _http_socket(self) -> str:
        """Triton's own HTTP, in the run folder; by its descriptor, because a socket's path is limited to 107 bytes."""
        return f"/proc/{os.getpid()}/fd/{self._run_fd}/{HTTP_SOCKET}"

    def _open_http(self, host: str) -> None:
        self._access = ServerAccess(self.http_url, self.grpc_url)
        app = Front(self._http_socket, self._access.secret, any_host=not is_this_machine(host))
        self._front = AsgiServer(
            app,
            "http",
            host,
            self.ports.http,
            lifespan="off",
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        self._front.start()

    def _leave_access(self) -> None:
        """For ``neuro-latent adapters``; a server that listens on a network loads nothing, so it needs none."""
        if self._access is not None and is_this_machine(numeric_host(self.config.host)):
            with suppress(OSError):  # adapters then says where it has looked
                self._access.write()

    def _running(self) -> ServerProcess:
        if self._process is None:
            raise ServeError("the server has not been started")
        return self._process


def exit_text(code: int) -> str:
    """An exit code in words."""
    return f"signal {code - 128}" if code > 128 else f"exit code {code}"
