"""A container of an image, as `docker run --read-only --network none` would make it."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.deploy.image import Image
from tests.deploy.namespaces import Mount, Root, Running


@dataclass(frozen=True)
class Container:
    """A started container; its log is read when it has ended."""

    image: Image
    running: Running

    def run(self, *program: str, timeout: float = 60) -> "subprocess.CompletedProcess[str]":
        """As `docker exec`."""
        return subprocess.run(self.running.command(*program), capture_output=True, text=True, timeout=timeout)

    @contextmanager
    def start(self, *program: str) -> "Iterator[subprocess.Popen[str]]":
        """As `docker exec` in the background, with its output in pipes; killed at the end of the block."""
        process = subprocess.Popen(
            self.running.command(*program),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):  # nsenter and the program, which is a child of it
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=30)

    def becomes_healthy(self, seconds: float) -> bool:
        """Whether the image's health check passes before ``seconds`` are over or the container has ended."""
        deadline = time.monotonic() + seconds
        while self.running.process.poll() is None and time.monotonic() < deadline:
            if self.run(*self.image.health).returncode == 0:
                return True
        return False

    def ask_to_stop(self) -> None:
        """As `docker stop` begins."""
        os.kill(self.running.pid, signal.SIGTERM)

    def end(self, seconds: float) -> tuple[int, str]:
        """The exit code of process 1 and all that the container has written."""
        output, _ = self.running.process.communicate(timeout=seconds)
        return self.running.process.returncode, output


@contextmanager
def container(
    image: Image, scratch: Path, mounts: Sequence[Mount] = (), extra: Sequence[str] = (), **environment: str
) -> Iterator[Container]:
    """Start the image with its entry point; ``extra`` replaces its command."""
    variables: Mapping[str, str] = {**image.environment, **environment}
    command = Root(image.layers, scratch / "upper").command(
        [*image.entrypoint, *(extra or image.command)],
        variables,
        user=image.user,
        folder=image.folder,
        mounts=mounts,
        read_only=True,
        own_network=True,
    )
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    started = Container(image, Running(process, variables, image.user))
    try:
        yield started
    finally:
        if process.poll() is None:
            os.kill(started.running.pid, signal.SIGKILL)  # process 1 takes all others with it
        with suppress(ValueError):  # its pipe was read to the end before
            process.communicate(timeout=30)
