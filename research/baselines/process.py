"""A worker seen from the program that asks it."""

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from neuro_latent_benchmarks.report import BenchError


class WorkerProcess:
    """A worker that is loaded; a context manager that ends it whatever happens.

    Args:
        name: for errors.
        command: that starts the worker.
        load: the fields of its ``load`` question.
    """

    def __init__(self, name: str, command: Sequence[str], load: dict[str, Any]) -> None:
        self.name = name
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115, closed in close()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=os.environ | {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
        try:
            self.versions: dict[str, str] = self.ask("load", **load)["versions"]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """One question, and its answer.

        Raises:
            BenchError: the system failed, or the process is gone; with the end of its output.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"op": op, **fields}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise BenchError(f"{self.name}: its process ended during {op!r}:\n{self._tail()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BenchError(f"{self.name}: {op} failed: {answer['error']}\n{self._tail()}")
        return answer

    def close(self) -> None:
        """End the process. A second call does nothing."""
        if self._process.poll() is None:
            self._process.kill()  # it holds nothing that must be put away
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()
        self._log.close()

    def _tail(self, lines: int = 12) -> str:
        if self._log.closed:
            return ""
        self._log.seek(0)
        return "  " + "\n  ".join(self._log.read().splitlines()[-lines:])
