"""Another attempt where it may help and can do no harm, within the time of the call.

An attempt is repeated when the server could not be reached, was lost, or was too busy. Optimizing changes nothing on
the server, and feedback has its idempotency key, so repeating either is safe while nothing of an answer was handed on.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar

from ._request import InferRequest
from .errors import ServerUnavailableError

T = TypeVar("T")

# stamina is imported in the functions: the command line should start fast.

_FIRST_WAIT_S: Final = 0.1
_LONGEST_WAIT_S: Final = 2.0


def retried(attempt: Callable[[InferRequest], T], request: InferRequest, retries: int) -> T:
    """Make up to ``1 + retries`` attempts; the error of the last one is raised."""
    import stamina

    caller = stamina.RetryingCaller(**_policy(request, retries))
    return caller(partial(_may_help, request), lambda: attempt(request.sent_now()))


async def retried_async(attempt: Callable[[InferRequest], Awaitable[T]], request: InferRequest, retries: int) -> T:
    """The same for a coroutine function."""
    import stamina

    caller = stamina.AsyncRetryingCaller(**_policy(request, retries))
    return await caller(partial(_may_help, request), lambda: attempt(request.sent_now()))


def _policy(request: InferRequest, retries: int) -> dict[str, Any]:
    """Waits double from the first to the longest, each with a random part; the time is watched by _may_help."""
    return {
        "attempts": retries + 1,
        "timeout": None,
        "wait_initial": _FIRST_WAIT_S,
        "wait_max": _longest_wait_s(request),
        "wait_jitter": _FIRST_WAIT_S,
    }


def _longest_wait_s(request: InferRequest) -> float:
    return min(_LONGEST_WAIT_S, request.timeout_s / 4)


def _may_help(request: InferRequest, error: Exception) -> bool:
    """Whether there is time to wait; else the caller should hear what was wrong, and not only that it is late."""
    return isinstance(error, ServerUnavailableError) and request.remaining_s > _longest_wait_s(request)
