"""Another attempt where it may help and can do no harm, within the time of the call.

An attempt is repeated when the server could not be reached, was lost, or was too busy. Optimizing changes nothing on
the server, and feedback has its idempotency key, so repeating either is safe while nothing of an answer was handed on.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from ._coroutines import run
from ._request import InferRequest
from .errors import ServerUnavailableError

T = TypeVar("T")

_FIRST_WAIT_S: Final = 0.1
_LONGEST_WAIT_S: Final = 2.0


async def retried(
    attempt: Callable[[InferRequest], Coroutine[Any, Any, T]], request: InferRequest, retries: int, *, blocking: bool
) -> T:
    """Make up to ``1 + retries`` attempts; the error of the last one is raised."""
    import stamina  # only now: the command line should start fast

    longest_wait_s = min(_LONGEST_WAIT_S, request.timeout_s / 4)

    def may_help(error: Exception) -> bool:
        """Whether there is time to wait; else the caller should hear what was wrong, and not only that it is late."""
        return isinstance(error, ServerUnavailableError) and request.remaining_s > longest_wait_s

    # Waits double from the first to the longest, each with a random part; the time is watched by may_help.
    policy: dict[str, Any] = {
        "attempts": retries + 1,
        "timeout": None,
        "wait_initial": _FIRST_WAIT_S,
        "wait_max": longest_wait_s,
        "wait_jitter": _FIRST_WAIT_S,
    }
    if blocking:
        return stamina.RetryingCaller(**policy)(may_help, lambda: run(attempt(request.sent_now())))
    return await stamina.AsyncRetryingCaller(**policy)(may_help, lambda: attempt(request.sent_now()))
