"""A tritonserver process: its command line, its environment, and the watchdog that holds it."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from neuro_latent_serving.errors import ServeError
from neuro_latent_serving.launch import watchdog
from neuro_latent_serving.repository.check import is_shell_safe
from neuro_latent_serving.web.ports import is_this_machine

RUN_PREFIX = "neuro-latent-serve-"
"""Of run folders."""

SHM_PREFIX = "neuro-latent-"
"""Of shared memory."""

LOCK = "lock"
LOG = "tritonserver.log"
KEPT_LOG_S = 7 * 24 * 3600.0
"""How long the log of a server that has failed is kept."""

TEMPORARY_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")

CLOSED_APIS = "model-repository,shared-memory,trace,logging"
"""What nobody needs who asks for answers: loading models, mapping memory, writing trace files, changing the log."""

NO_CALL_CARRIES = "x" * 20_000
"""A word that closes a part of gRPC to everybody: a call's metadata are at most 16 kB. A secret is no option: every
user of the machine can read the command line of tritonserver."""

CONNECTION_AGE_MS = 300_000
CONNECTION_GRACE_MS = 600_000  # as long as the longest deadline of a request


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


def server_options(host: str, takes_adapters: bool = False) -> list[str]:
    """Options of a tritonserver that listens on ``host``, a numeric address.

    On this machine models are loaded when somebody with the server's secret asks. Strict readiness would count the
    versions that a newer one has replaced as not ready; whoever starts us asks each model, and a model that does not
    load ends the server. On a network nothing is loaded after the start, but with ``takes_adapters`` by ourselves: the
    secret stays in this process. Otherwise readiness is strict there: a load balancer asks for it, and leaves out a
    server of which a model has failed. Connections are renewed, so that clients that keep theirs find the replicas that
    came after them.
    """
    options = [f"--grpc-restricted-protocol={CLOSED_APIS}:closed={NO_CALL_CARRIES}"]
    if takes_adapters or is_this_machine(host):
        options += ["--model-control-mode=explicit", "--load-model=*", "--strict-readiness=false"]
    else:
        options += ["--model-control-mode=none", "--strict-readiness=true"]
    if not is_this_machine(host):
        options += [
            f"--grpc-max-connection-age={CONNECTION_AGE_MS}",
            f"--grpc-max-connection-age-grace={CONNECTION_GRACE_MS}",
        ]
    return options


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
        self._lock = hold(shm_prefix, run_dir)
        with log_file.open("ab") as log:
            # A session of its own: Ctrl-C in a terminal reaches us alone, and we drain the server.
            self._watchdog = subprocess.Popen(
                [sys.executable, "-I", "-S", watchdog.__file__, shm_prefix, str(run_dir), *command],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                bufsize=0,
                pass_fds=(self._lock,),
            )
        assert self._watchdog.stdin is not None
        assert self._watchdog.stdout is not None
        self._orders = self._watchdog.stdin
        with self._watchdog.stdout as answer:
            line = answer.readline()
        if not line.strip().isdigit():
            self._orders.close()
            self._watchdog.wait(timeout=10)
            watchdog.remove_shared_memory(shm_prefix)
            os.close(self._lock)
            raise ServeError(f"tritonserver could not be started; its log is {log_file}")
        self.pid = int(line)

    def poll(self) -> int | None:
        """The exit code of the server (128 + n: ended by signal n), or None while it runs."""
        return self._watchdog.poll()

    def terminate(self) -> None:
        """Ask the server to finish the requests that it has, and to exit."""
        self._order(b"t")

    def kill(self) -> None:
        """End the server and all of its children now."""
        self._order(b"k")

    def wait(self, seconds: float) -> int | None:
        """The exit code, or None when the server still runs after ``seconds``."""
        try:
            return self._watchdog.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """Make sure that nothing is left: also when somebody killed the watchdog itself."""
        self._orders.close()
        if self.wait(15) is None:
            self._watchdog.kill()
            self._watchdog.wait(timeout=5)
        if (self._watchdog.returncode or 0) < 0:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        watchdog.remove_shared_memory(self._shm_prefix)
        os.close(self._lock)

    def _order(self, order: bytes) -> None:
        if not self._orders.closed:
            with suppress(BrokenPipeError):  # the server has ended already
                self._orders.write(order)


def hold(shm_prefix: str, run_dir: Path) -> int:
    """A lock beside the server's shared memory, in a file that names its run folder.

    The watchdog, the server and its stubs inherit the descriptor, so the lock is free when all of them have ended.
    """
    file = watchdog.SHARED_MEMORY / f"{shm_prefix}{LOCK}"
    new = file.with_name(f".{file.name}")  # nobody looks at it before it is locked
    lock = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.write(lock, os.fsencode(run_dir.absolute()))
    new.rename(file)
    return lock


def remove_leftovers(run_root: Path) -> None:
    """Remove shared memory and run folders of servers whose processes were all killed, and old logs in ``run_root``."""
    for file in watchdog.SHARED_MEMORY.glob(f"{SHM_PREFIX}*-{LOCK}"):
        with suppress(OSError):  # somebody else's, or one whose server runs
            lock = os.open(file, os.O_RDWR | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid != os.geteuid():
                    continue
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                run_dir = Path(os.fsdecode(os.read(lock, 4096)))
                if run_dir.name.startswith(RUN_PREFIX):
                    shutil.rmtree(run_dir, ignore_errors=True)
                watchdog.remove_shared_memory(file.name.removesuffix(LOCK))
            finally:
                os.close(lock)
    for log in run_root.glob(f"{RUN_PREFIX}*/{LOG}"):
        with suppress(OSError):
            is_old = time.time() - log.stat().st_mtime > KEPT_LOG_S
            if is_old and log.stat().st_uid == os.geteuid() and [*log.parent.iterdir()] == [log]:
                shutil.rmtree(log.parent)
