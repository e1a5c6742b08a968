"""Load on a server, made by a process of its own so that measuring and asking do not share an interpreter.

Closed loop: a fixed number of clients, each asks again when it has its answer. Open loop: requests arrive when they
arrive, whether the server keeps up or not; their time counts from when they should have been sent.
"""

import itertools
import multiprocessing
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from types import TracebackType

from neuro_latent_client import Client, NeuroLatentError

Job = tuple[str, int]  # raw prompt, max_length
TIMEOUT_S = 120.0
OPEN_LOOP_THREADS = 256


@dataclass(frozen=True, slots=True)
class RequestTiming:
    """One request. Times in seconds from the start of the run; ``start`` is when it was due.

    Attributes:
        first: when its first piece came; ``end`` where it was not streamed.
        tokens: written.
        error: empty, or what went wrong.
    """

    start: float
    first: float
    end: float
    tokens: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class LoadRun:
    """All requests of one run, and how long it took in seconds."""

    timings: tuple[RequestTiming, ...]
    seconds: float

    @property
    def good(self) -> list[RequestTiming]:
        """Those that were answered."""
        return [timing for timing in self.timings if not timing.error]

    @property
    def tokens(self) -> int:
        """Written in all."""
        return sum(timing.tokens for timing in self.good)


def ask(client: Client, job: Job, stream: bool, clock: Callable[[], float], due: float) -> RequestTiming:
    """Send one request and wait for all of its answer."""
    prompt, max_length = job
    first = None
    try:
        if stream:
            with client.stream(prompt, max_length=max_length, timeout=TIMEOUT_S) as pieces:
                for _ in pieces:
                    first = first if first is not None else clock()
            answer = pieces.result
        else:
            answer = client.optimize(prompt, max_length=max_length, timeout=TIMEOUT_S)
    except NeuroLatentError as error:
        return RequestTiming(due, clock(), clock(), 0, f"{type(error).__name__}: {error}")
    end = clock()
    return RequestTiming(due, end if first is None else first, end, sum(s.generated_tokens for s in answer.sequences))


def closed_loop(url: str, jobs: Sequence[Job], clients: int, seconds: float, stream: bool) -> LoadRun:
    """``clients`` clients go through ``jobs`` once; with ``seconds`` above 0 again and again for that time."""
    start = time.perf_counter()

    def clock() -> float:
        return time.perf_counter() - start

    queue = iter(jobs) if seconds <= 0 else itertools.cycle(jobs)
    lock, timings = threading.Lock(), []

    def work() -> None:
        while seconds <= 0 or clock() < seconds:
            with lock:
                job = next(queue, None)
            if job is None:
                return
            timings.append(ask(client, job, stream, clock, clock()))

    with Client(url, retries=0) as client:
        client.health()  # connect before the clock starts
        start = time.perf_counter()
        threads = [threading.Thread(target=work, daemon=True) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return LoadRun(tuple(timings), clock())


def open_loop(url: str, jobs: Sequence[Job], arrivals: Sequence[float], stream: bool) -> LoadRun:
    """Send a request at each of ``arrivals`` (seconds, ascending)."""
    timings: list[RequestTiming] = []
    with Client(url, retries=0) as client, ThreadPoolExecutor(OPEN_LOOP_THREADS) as pool:
        client.health()
        start = time.perf_counter()

        def clock() -> float:
            return time.perf_counter() - start

        pending = []
        for job, due in zip(itertools.cycle(jobs), arrivals):
            time.sleep(max(0.0, due - clock()))
            pending.append(pool.submit(ask, client, job, stream, clock, due))
        timings = [future.result() for future in pending]
        return LoadRun(tuple(timings), clock())


class LoadProcess:
    """The other process. A context manager; it ends with us."""

    def __init__(self, url: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._url = url
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> "LoadProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.join()

    def closed(self, jobs: Sequence[Job], *, clients: int, seconds: float = 0, stream: bool = False) -> LoadRun:
        """See :func:`closed_loop`."""
        return self._ask(partial(closed_loop, self._url, jobs, clients, seconds, stream))

    def open(self, jobs: Sequence[Job], arrivals: Sequence[float], *, stream: bool = True) -> LoadRun:
        """See :func:`open_loop`."""
        return self._ask(partial(open_loop, self._url, jobs, arrivals, stream))

    def _ask(self, loop: Callable[[], LoadRun]) -> LoadRun:
        self._pipe.send(loop)
        try:
            run: LoadRun = self._pipe.recv()
        except EOFError:
            raise RuntimeError("the process that makes the load has ended") from None
        return run


def _work(pipe: Connection) -> None:
    """Runs loops, until nobody asks for one."""
    with suppress(EOFError):
        while True:
            pipe.send(pipe.recv()())
