"""Another attempt where it may help and can do no harm, within the time of the call.

An attempt is repeated when the server could not be reached, was lost, or was too busy. Optimizing changes nothing on
the server, and feedback has its idempotency key, so repeating either is safe while nothing of an answer was handed on.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

import stamina

from ._request import InferRequest
from .errors import ServerUnavailableError

T = TypeVar("T")

_FIRST_WAIT_S: Final = 0.1
_LONGEST_WAIT_S: Final = 2.0


def retried(attempt: Callable[[InferRequest], T], request: InferRequest, retries: int) -> T:
    """Make up to ``1 + retries`` attempts; the error of the last one is raised."""
    caller = stamina.RetryingCaller(retries + 1, None, _FIRST_WAIT_S, _longest_wait_s(request), _FIRST_WAIT_S)
    return caller(partial(_may_help, request), lambda: attempt(request.sent_now()))


async def retried_async(attempt: Callable[[InferRequest], Awaitable[T]], request: InferRequest, retries: int) -> T:
    """The same for a coroutine function."""
    caller = stamina.AsyncRetryingCaller(retries + 1, None, _FIRST_WAIT_S, _longest_wait_s(request), _FIRST_WAIT_S)
    return await caller(partial(_may_help, request), lambda: attempt(request.sent_now()))


def _longest_wait_s(request: InferRequest) -> float:
    return min(_LONGEST_WAIT_S, request.timeout_s / 4)


def _may_help(request: InferRequest, error: Exception) -> bool:
    """Whether there is time to wait; else the caller should hear what was wrong, and not only that it is late."""
    return isinstance(error, ServerUnavailableError) and request.remaining_s > _longest_wait_s(request)
