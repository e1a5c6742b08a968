"""``neuro-latent serve`` as a user starts it, its processes, and what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import psutil

from neuro_latent_client import Client
from neuro_latent_serving.launch.process import LOCK, RUN_PREFIX, SHM_PREFIX
from neuro_latent_serving.settings import FEEDBACK_VARIABLE
from tests.chaos.load import Load, counted, seconds_down
from tests.chaos.outcome import Outcome
from tests.e2e.commands import COMMAND, ENVIRONMENT

SHARED_MEMORY = Path("/dev/shm")
RUNNING: set[subprocess.Popen[str]] = set()
"""Commands that were started and may run: a run that is broken off kills them, and they take all else along."""

READY_S = 90.0
BACK_S = 60.0
"""A server that is not back by then does not come back."""

SETTLE_S = 12.0
"""How long what is being cleaned up may take: connections without a request end after ten seconds."""

MORE_DESCRIPTORS = 16
"""A process may have so many more open than before: pools of connections and threads grow to their size."""


def say(text: str) -> None:
    """Progress, on stderr."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def wait_until(done: Callable[[], bool], seconds: float) -> bool:
    """Whether something has become true in time."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def region_of(server: psutil.Process) -> str:
    """How the names of its shared memory begin; "" where it has just ended."""
    with suppress(psutil.Error):
        for word in server.cmdline():
            if "shm-region-prefix-name=" in word:
                return word.rpartition("=")[2]
    return ""


class Rig:
    """A server with its database and its folder of temporary files, in a folder of its own.

    Args:
        wrapper: words before the command, for a name space of its own.

    Attributes:
        inside: words before a command that is to run in that name space.
    """

    def __init__(self, repository: Path, folder: Path, *, wrapper: tuple[str, ...] = ()) -> None:
        self.repository, self.folder, self._wrapper = repository, folder, wrapper
        self.temporary = folder / "tmp"
        self.database = folder / "data" / "feedback.sqlite3"
        self.log = folder / "log"
        self.facts: dict[str, object] = {}
        self.inside: tuple[str, ...] = ()
        self._starts = 0
        self._regions: set[str] = set()
        for made in (self.temporary, self.database.parent):
            made.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "Rig":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()

    def start(self) -> None:
        """Start it, at the addresses it had, and wait until it is ready."""
        ports = {name: str(self.facts.get(name, "0")).rpartition(":")[2] for name in ("http", "grpc", "gateway")}
        options = [f"--{name}-port={port}" for name, port in ports.items()]
        state = {"XDG_STATE_HOME": str(self.folder / "state"), "TMPDIR": str(self.temporary)}
        before = self._starts
        options += [f"--repository={self.repository}", f"--log-file={self.log}", "--metrics-port=0", "--json"]
        options += ["--restarts=600", "--drain-timeout=5"]  # it is killed on purpose
        self.process = subprocess.Popen(
            [*self._wrapper, COMMAND, "serve", *options],
            env={**ENVIRONMENT, **state, FEEDBACK_VARIABLE: f"sqlite:///{self.database}"},
            stdout=subprocess.PIPE,
            stderr=(self.folder / "stderr").open("ab"),
            text=True,
            start_new_session=True,
        )
        RUNNING.add(self.process)
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()
        if not wait_until(lambda: self._starts > before or self.process.poll() is not None, READY_S) or not self.urls:
            raise RuntimeError(f"it did not start: {(self.folder / 'stderr').read_text()[-2000:]}")

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:  # one at every start of Triton
            self.facts = json.loads(line)
            if (server := self.find("tritonserver")) is not None:
                self._regions.add(region_of(server))
            self._starts += 1

    @property
    def urls(self) -> dict[str, str]:
        return {name: str(self.facts[name]) for name in ("http", "grpc", "gateway")} if self.facts else {}

    @property
    def starts(self) -> int:
        """How often Triton was ready."""
        return self._starts

    def find(self, name: str) -> psutil.Process | None:
        """A process by what it is: serve, watchdog, tritonserver, or the model that it runs."""
        if name == "serve":
            return psutil.Process(self.process.pid)
        with suppress(psutil.NoSuchProcess):
            server = psutil.Process(int(str(self.facts["pid"])))
            if name in ("tritonserver", "watchdog"):
                return server if name == "tritonserver" else server.parent()
            for child in server.children(recursive=True):
                if f"/{name}/" in " ".join(child.cmdline()):
                    return child
        return None

    def family(self) -> list[psutil.Process]:
        """All processes."""
        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        return []

    def descriptors(self) -> dict[int, int]:
        """How many each process has open."""
        found = {}
        for process in self.family():
            with suppress(psutil.Error):
                found[process.pid] = process.num_fds()
        return found

    def is_whole(self) -> bool:
        """Whether prompts are answered by both models, and feedback stored, as the gateway's health says."""
        with suppress(httpx2.HTTPError, ValueError):
            answer = httpx2.get(f"{self.urls['gateway']}/health", timeout=10, trust_env=False)
            return answer.status_code == 200 and answer.json()["feedback"] == "ready"
        return False

    def stored(self) -> set[str]:
        """The keys that are in the database."""
        words = [*self.inside, COMMAND, "feedback", "export", "--url", f"sqlite:///{self.database}"]
        done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise RuntimeError(f"the database cannot be read: {done.stderr.strip()}")
        return {json.loads(line)["request_id"] for line in done.stdout.splitlines()}

    def stop(self) -> list[str]:
        """End it as Ctrl-C would; what is left."""
        family = self.family()
        self.process.send_signal(signal.SIGTERM)
        left = []
        try:
            code = self.process.wait(40)
            left += [f"exit code {code}"] if code else []
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            left.append("it did not stop in 40 seconds")
        wait_until(lambda: not any(one.is_running() for one in family), 10)
        for one in family:
            if one.is_running() and one.status() != psutil.STATUS_ZOMBIE:
                left.append(f"process {one.pid}")
                one.kill()
        return left + self._files(running=False)

    def _files(self, *, running: bool) -> list[str]:
        """Shared memory and run folders that belong to no server that runs."""
        folders = [*self.temporary.glob(f"{RUN_PREFIX}*")]
        for lock in SHARED_MEMORY.glob(f"{SHM_PREFIX}*-{LOCK}"):  # it names the run folder; others have servers, too
            with suppress(OSError):
                if lock.read_text().startswith(str(self.temporary)):
                    self._regions.add(lock.name.removesuffix(LOCK))
        ended = self._regions - {""}
        if running and (server := self.find("tritonserver")) is not None:
            ended -= {region_of(server)}
            words = " ".join(server.cmdline())
            folders = [folder for folder in folders if str(folder) not in words]
        return [str(path) for region in sorted(ended) for path in SHARED_MEMORY.glob(f"{region}*")] + [
            str(folder) for folder in folders
        ]

    def leaks(self, before: dict[int, int], gone: list[psutil.Process]) -> tuple[str, ...]:
        """What a fault has left, once it had time to go."""

        def found() -> list[str]:
            now = self.descriptors()
            more = {pid: now[pid] - count for pid, count in before.items() if pid in now}
            grown = [f"{more[pid]} descriptors more in process {pid}" for pid in more if more[pid] > MORE_DESCRIPTORS]
            return [f"process {one.pid}" for one in gone if one.is_running()] + self._files(running=True) + grown

        wait_until(lambda: not found(), SETTLE_S)
        return tuple(found())


@contextmanager
def measured(rig: Rig, load: Load, name: str, tries: int, report: list[Outcome]) -> Iterator[dict[str, str]]:
    """Make a fault in the block, wait until the server is back, and add the row.

    What is noted in what it yields is told there; "trouble" fails the row, and rows of "gone" were deleted on purpose.
    """
    notes: dict[str, str] = {}
    before, family, starts = rig.descriptors(), rig.family(), rig.starts
    began = time.monotonic()
    yield notes
    repaired = time.monotonic()
    trouble = notes.pop("trouble", "")
    if not wait_until(rig.is_whole, BACK_S):
        trouble = f"the server was not whole {BACK_S:.0f} s later"
    if not trouble and not wait_until(lambda: load.answered_since(repaired), 30):
        trouble = "not every kind of request is answered again"
    sent = load.since(began)
    errors, hangs, wrong = counted(sent)
    rows = {one.key for one in sent if one.key and not one.how} - set(notes.pop("gone", "").split())
    wait_until(lambda: rig.find("tritonserver") is not None, 30)  # the line that names it comes a little later
    there = {one.pid for one in rig.family()}
    gone = [one for one in family if one.pid not in there]
    note = [f"{rig.starts - starts} restarts"] if rig.starts > starts else []
    note += [f"the machine stood still for {still:.0f} s"] if (still := load.stood_still_s(began)) else []
    note += [f"wrong: {' '.join(what.split())[:200]}" for what in sorted({one.what for one in sent if one.what})[:2]]
    report.append(
        Outcome(
            name,
            tries,
            len(sent),
            errors,
            hangs,
            wrong,
            seconds_down(sent, began, sent[-1].ended) if sent else 0.0,
            len(rows),
            len(rows - rig.stored()),
            rig.leaks(before, gone),
            trouble,
            note="; ".join([*note, *notes.values()]),
        )
    )
    say(f"{name}: {report[-1].requests} requests, {report[-1].remarks()}, {report[-1].down_s:.1f} s down")


def ask_once(rig: Rig) -> None:
    """One prompt, with the client as users have it."""
    with Client(rig.urls["grpc"]) as client:
        client.optimize("Create a function", max_length=4)
