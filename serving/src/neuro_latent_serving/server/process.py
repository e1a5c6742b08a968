"""A tritonserver process: its command line, its environment, and the keeper that holds it."""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from neuro_latent_serving.server import keeper
from neuro_latent_serving.server.access import server_options
from neuro_latent_serving.server.errors import ServeError
from neuro_latent_serving.server.ports import Ports

TEMPORARY_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")


def is_shell_safe(path: Path) -> bool:
    """Whether a shell, and a list of folders with colons, take a path as it is.

    Triton starts the stub of a python model through a shell, with the paths of the model and of the backend.
    """
    return shlex.quote(str(path)) == str(path) and ":" not in str(path)


def temporary_folder() -> Path:
    """Where run folders are made: the system's temporary folder (TMPDIR), or another one if that is not shell-safe.

    Raises:
        ServeError: there is none.
    """
    wanted = Path(tempfile.gettempdir()).absolute()
    for folder in (wanted, *map(Path, TEMPORARY_FOLDERS)):
        if is_shell_safe(folder) and folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise ServeError(
        f"no folder for temporary files: {wanted} has characters in its path that a shell reads, and none of "
        f"{', '.join(TEMPORARY_FOLDERS)} can be written",
        "Set TMPDIR to a folder whose path has only letters, digits and / . _ - +",
    )


def server_arguments(
    *,
    repository: Path,
    backends: Path,
    host: str,
    http_socket: str,
    ports: Ports,
    shm_prefix: str,
    drain_seconds: int,
    verbose: bool,
) -> list[str]:
    """The options of tritonserver. Information goes to the log file in any case; ``verbose`` adds a line a request.

    HTTP is on ``http_socket``, which nobody else reaches; ``front.py`` listens on its port.
    """
    return [
        f"--model-repository={repository}",
        f"--backend-directory={backends}",
        f"--http-address=unix:{http_socket}",
        f"--grpc-address={host}",
        f"--metrics-address={host}",
        f"--http-port={ports.http}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-port={ports.metrics}",
        "--reuse-grpc-port=false",
        "--disable-auto-complete-config",
        "--exit-on-error=true",
        f"--exit-timeout-secs={drain_seconds}",
        f"--log-verbose={int(verbose)}",
        f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
        *server_options(host),
    ]


def server_environment(additions: Mapping[str, str]) -> dict[str, str]:
    """Our environment, with the running Python's programs first on the PATH.

    The python backend's stub embeds an interpreter that finds its packages through the ``python3`` on the PATH. So the
    virtual environment of this very process is used, whether it was activated or called by its full path.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONHOME"}
    programs = Path(sys.executable).parent
    environment["PATH"] = f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    if sys.prefix != sys.base_prefix:
        environment["VIRTUAL_ENV"] = sys.prefix
    # onnxruntime of PyPI reports its use to Microsoft on Linux unless this is set.
    environment["ORT_DISABLE_TELEMETRY"] = "1"
    return environment | dict(additions)


class ServerProcess:
    """A running tritonserver. It ends with us, however we end, and takes its children and shared memory with it."""

    def __init__(
        self, command: list[str], environment: Mapping[str, str], log_file: Path, run_dir: Path, shm_prefix: str
    ) -> None:
        self._shm_prefix = shm_prefix
        with log_file.open("ab") as log:
            # A session of its own: Ctrl-C in a terminal reaches us alone, and we stop the server in order.
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", keeper.__file__, shm_prefix, str(run_dir), *command],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                bufsize=0,
            )
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._orders = self._keeper.stdin
        with self._keeper.stdout as answer:
            line = answer.readline()
        if not line.strip().isdigit():
            self._orders.close()
            self._keeper.wait(timeout=10)
            raise ServeError(f"tritonserver could not be started; its log is {log_file}")
        self.pid = int(line)

    def poll(self) -> int | None:
        """The exit code of the server (128 + n: ended by signal n), or None while it runs."""
        return self._keeper.poll()

    def terminate(self) -> None:
        """Ask the server to finish the requests that it has, and to exit."""
        self._order(b"t")

    def kill(self) -> None:
        """End the server and all of its children now."""
        self._order(b"k")

    def wait(self, seconds: float) -> int | None:
        """The exit code, or None when the server still runs after ``seconds``."""
        try:
            return self._keeper.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """Make sure that nothing is left: also when somebody killed the keeper itself."""
        self._orders.close()
        if self.wait(15) is None:
            self._keeper.kill()
            self._keeper.wait(timeout=5)
        if (self._keeper.returncode or 0) < 0:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        keeper.remove_shared_memory(self._shm_prefix)

    def _order(self, order: bytes) -> None:
        if not self._orders.closed:
            with suppress(BrokenPipeError):  # the server has ended already
                self._orders.write(order)
