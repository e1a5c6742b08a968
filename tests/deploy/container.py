"""A container of an image, as `docker run --read-only --network none` would make it."""

import os
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

    def start(self, *program: str) -> "subprocess.Popen[str]":
        """As `docker exec --detach`, with its output in pipes."""
        return subprocess.Popen(
            self.running.command(*program), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def becomes_healthy(self, seconds: float) -> bool:
        """Whether the image's health check passes before ``seconds`` are over or the container has ended."""
        deadline = time.monotonic() + seconds
        while self.running.process.poll() is None and time.monotonic() < deadline:
            if self.run(*self.image.health).returncode == 0:
                return True
        return False

    def signal(self, number: int) -> None:
        os.kill(self.running.pid, number)

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
    try:
        yield Container(image, Running(process, variables, image.user))
    finally:
        if process.poll() is None:
            process.kill()
        with suppress(ValueError):  # its pipe was read to the end before
            process.communicate(timeout=30)
