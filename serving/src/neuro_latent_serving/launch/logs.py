"""What a person should see of a Triton log: the lines that say why, without those that are always there."""

import re
import sys
import threading
from pathlib import Path
from typing import TextIO

RECORD = re.compile(r"^(?P<level>[IWEF])\d{4} \d\d:\d\d:\d\d\.\d+\s+\d+ \S+\]\s*(?P<text>.*)$")
FAILED_MODEL = re.compile(
    r"failed to load '(?P<model>[^']+)' version \d+: (?:[A-Z][a-z ]+: )?(?P<reason>.*)", re.DOTALL
)
NAMELESS = "failed to load all models"

HARMLESS = (
    "CudaDriverHelper has not been initialized",
    "CUDA driver version is insufficient for CUDA runtime version",
    "Failed to initialize NVML",
    "DCGM unable to start",
    "no pinned memory pool, falling back",
)
"""Parts of lines that a server without a GPU always writes."""


def is_harmless(line: str) -> bool:
    """Whether a line is one that every healthy server on a machine without a GPU writes."""
    return any(part in line for part in HARMLESS)


def failure_lines(log: str, limit: int = 40) -> list[str]:
    """Why a start failed: a line a model that did not load, then the other errors; the log's end if it has neither."""
    models: dict[str, str] = {}
    others: list[str] = []
    for line in log.splitlines():
        if is_harmless(line):
            continue
        record = RECORD.match(line)
        if record is None:
            if line.lower().startswith("error"):
                others.append(line)
        elif record["level"] in "EF":
            text = unquote(record["text"])
            failed = FAILED_MODEL.search(text)
            if failed is not None:
                models[failed["model"]] = failed["reason"].strip()
            else:
                others.append(text)
    if models:
        # Triton repeats a model's reason in several records, at greater length each time.
        repeated = (NAMELESS, *models.values())
        others = [text for text in others if not any(part in text for part in repeated)]
    reasons = [f"model {model}: {reason}" for model, reason in models.items()] + others
    lines = [line for reason in dict.fromkeys(reasons) for line in reason.splitlines() if line.strip()]
    if not lines:
        lines = [line for line in log.splitlines() if line.strip() and not is_harmless(line)]
        return lines[-limit:]
    return lines[:limit]


def unquote(text: str) -> str:
    """A record's text without Triton's quotes and with its line breaks."""
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = text[1:-1].replace('\\"', '"')
    return text.replace("\\n", "\n").strip()


class LogFollower:
    """Copies what is added to a log after byte ``start`` to stderr, until it is closed."""

    def __init__(self, log_file: Path, start: int, stream: TextIO | None = None, interval: float = 0.2) -> None:
        self._log_file = log_file
        self._start = start
        self._stream = stream or sys.stderr
        self._interval = interval
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="log-follower", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Copy what is there, and stop."""
        self._done.set()
        self._thread.join(timeout=5)

    def _follow(self) -> None:
        with self._log_file.open(errors="replace") as log:
            log.seek(self._start)
            done = False
            while not done:
                done = self._done.wait(self._interval)
                self._stream.writelines(line for line in log if not is_harmless(line))
                self._stream.flush()
