"""Users: threads that ask for prompts by every way, and rate them, all the time. Each answer is judged."""

import itertools
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import httpx2

from neuro_latent_client import Client, DeadlineError, ServerError, ServerUnavailableError

PROMPTS = ("Create a function", "write a poem about the sea", "explain photosynthesis to a child", "fix my python code")
TOKENS = 16
TIMEOUT_S = 15.0
"""A request that takes longer hangs."""

STILL_S = 2.0
"""A thread that sleeps a tenth of a second and wakes so late: the machine, or this program, stood still meanwhile."""

AFTER_FAILURE_S = 0.2
"""So that a server that is down is not asked thousands of times."""


class HttpError(Exception):
    """The gateway's answer that it cannot do it now: a problem with its status."""


@dataclass(frozen=True)
class Sent:
    """A request that has ended: when, how ("" is well, "hang", "wrong", else the name of the error), and of what."""

    began: float
    ended: float
    how: str
    key: str = ""
    what: str = ""


def judged(work: Callable[[], str], right: str | None) -> tuple[str, str]:
    """How a request ends, as :class:`Sent` has it, and for what is wrong what it was."""
    try:
        text = work()
    except (DeadlineError, httpx2.TimeoutException):
        return "hang", ""
    except (ServerUnavailableError, ServerError, HttpError) as error:
        return str(error) if isinstance(error, HttpError) else type(error).__name__, ""
    except httpx2.TransportError:
        return "connection refused or lost", ""
    except Exception as error:
        return "wrong", f"{type(error).__name__}: {error}"
    return ("", "") if right is None or text == right else ("wrong", f"another text: {text!r}")


class Load:
    """Two threads for each way to ask, and two that rate. Use it as a context manager.

    Args:
        urls: ``grpc``, ``http`` and ``gateway``.
    """

    def __init__(self, urls: dict[str, str]) -> None:
        self._urls = urls
        self._over = threading.Event()
        self._sent: list[Sent] = []
        self._pauses: list[tuple[float, float]] = []
        with Client(urls["grpc"], timeout=60) as client:
            self.right = {prompt: client.optimize(prompt, max_length=TOKENS).text for prompt in PROMPTS}
        ways = (self._whole, self._stream, self._http, self._gateway, self._rate)
        self._threads = [threading.Thread(target=way, daemon=True) for way in ways for _ in range(2)]
        self._threads.append(threading.Thread(target=self._look_at_the_machine, daemon=True))

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S + 10)

    def since(self, began: float, until: float = float("inf")) -> list[Sent]:
        """What has ended since a moment of the monotonic clock."""
        return [self._excused(one) for one in self._sent[:] if began <= one.ended <= until]

    def stood_still_s(self, began: float) -> float:
        """How long the machine itself has stood still since a moment, which is no fault of the server."""
        return sum(until - since for since, until in self._pauses if until >= began)

    def _excused(self, sent: Sent) -> Sent:
        paused = any(since < sent.ended and until > sent.began for since, until in self._pauses)
        return replace(sent, how="late (the machine stood still)") if sent.how == "hang" and paused else sent

    def _look_at_the_machine(self) -> None:
        before = time.monotonic()
        while not self._over.wait(0.1):
            now = time.monotonic()
            if now - before > STILL_S:
                self._pauses.append((before, now))
            before = now

    def answered_since(self, began: float) -> bool:
        """Whether every kind of request has been answered that began after a moment."""
        good = [one for one in self.since(began) if one.began >= began and not one.how]
        return sum(not one.key for one in good) >= 8 and any(one.key for one in good)

    def stuck(self) -> int:
        """How many of the users wait for an answer that does not come, after the end."""
        return sum(thread.is_alive() for thread in self._threads)

    def _ask(self, ask: Callable[[str], str]) -> None:
        for prompt in itertools.cycle(PROMPTS):
            if self._over.is_set():
                return
            self._send(lambda: ask(prompt), self.right[prompt])  # noqa: B023 (it is called at once)

    def _send(self, work: Callable[[], str], right: str | None, key: str = "") -> None:
        began = time.monotonic()
        how, what = judged(work, right)
        self._sent.append(Sent(began, time.monotonic(), how, key, what))
        if how:
            time.sleep(AFTER_FAILURE_S)

    def _whole(self) -> None:
        with Client(self._urls["grpc"], timeout=TIMEOUT_S, retries=0) as client:
            self._ask(lambda prompt: client.optimize(prompt, max_length=TOKENS).text)

    def _http(self) -> None:
        with Client(self._urls["http"], timeout=TIMEOUT_S, retries=0) as client:
            self._ask(lambda prompt: client.optimize(prompt, max_length=TOKENS).text)

    def _stream(self) -> None:
        def ask(prompt: str) -> str:
            with client.stream(prompt, max_length=TOKENS) as stream:
                return "".join(piece.text for piece in stream)

        with Client(self._urls["grpc"], timeout=TIMEOUT_S, retries=0) as client:
            self._ask(ask)

    def _gateway(self) -> None:
        with httpx2.Client(base_url=self._urls["gateway"], timeout=TIMEOUT_S, trust_env=False) as client:
            self._ask(lambda prompt: rest(client, prompt))

    def _rate(self) -> None:
        with Client(self._urls["grpc"], timeout=TIMEOUT_S, retries=0) as client:
            while not self._over.is_set():
                key = uuid.uuid4().hex
                self._send(lambda: rate(client, key), None, key)  # noqa: B023 (it is called at once)
                time.sleep(0.02)


def rest(client: httpx2.Client, prompt: str) -> str:
    """The gateway's answer."""
    return text_of(client.post("/optimize", json={"raw_prompt": prompt, "max_length": TOKENS}))


def text_of(answer: httpx2.Response) -> str:
    """What the gateway has written.

    Raises:
        HttpError: it says, as its documents have it, that it cannot now.
    """
    if answer.status_code >= 500 and answer.headers["content-type"] == "application/problem+json":
        raise HttpError(str(answer.status_code))
    answer.raise_for_status()
    return str(answer.json()["enhanced_prompt"])


def rate(client: Client, key: str) -> str:
    """Send one row of feedback; the id of the row when it is acknowledged."""
    return client.feedback(key, 1, raw_prompt="Create a function", enhanced_prompt="Create a function").feedback_id


def counted(sent: list[Sent]) -> tuple[Counter[str], int, int]:
    """Errors by name, hangs, and what is wrong."""
    how = Counter(one.how for one in sent if one.how)
    return how, how.pop("hang", 0), how.pop("wrong", 0)


def seconds_down(sent: list[Sent], began: float, ended: float) -> float:
    """The longest time without an answer to a prompt in which a request for one failed, ``began`` to ``ended``."""
    asked = sorted((one.ended, one.how) for one in sent if not one.key)
    good = [began, *(moment for moment, how in asked if not how), ended]
    bad = [moment for moment, how in asked if how]
    gaps = itertools.pairwise(good)
    return max((end - start for start, end in gaps if any(start < moment <= end for moment in bad)), default=0.0)
