"""Commands as the documents have them, and the server as its command starts it."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMAND = str(Path(sys.executable).parent / "neuro-latent")
ENVIRONMENT = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}

_FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


def readme_blocks(document: str = "README.md") -> list[tuple[str, str]]:
    """A document's code blocks: language ("" for the shell) and text."""
    return _FENCE.findall((ROOT / document).read_text(encoding="utf-8"))


def readme_commands(document: str = "README.md") -> list[str]:
    """The shell commands of a document, in its order, without comments."""
    text = "\n".join(code for language, code in readme_blocks(document) if not language)
    lines = (line.split("  #")[0].strip() for line in text.replace("\\\n", " ").splitlines())
    return [line for line in lines if line]


@contextmanager
def served(
    *arguments: str, cwd: Path | None = None, environment: Mapping[str, str] = ENVIRONMENT
) -> Iterator[dict[str, object]]:
    """``neuro-latent serve`` in the background on free ports; ends it as Ctrl-C would and checks that it ended well.

    Yields:
        what it says of itself when it is ready: its addresses, its models.
    """
    ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics", "gateway")]
    process = subprocess.Popen(
        [COMMAND, "serve", *arguments, *ports, "--json"],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # A server that neither starts nor ends must not hold up the tests; its exit code then says so.
    watchdog = threading.Timer(240, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate(timeout=30)[1]
        yield json.loads(line)
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        watchdog.cancel()
    assert process.returncode == 0, errors
