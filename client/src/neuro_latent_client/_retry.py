"""Another attempt where it may help and can do no harm, within the time of the call.

An attempt is repeated when the server could not be reached, was lost, or was too busy. Optimizing changes nothing on
the server, and feedback has its idempotency key, so repeating either is safe while nothing of an answer was handed on.
"""

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from ._request import InferRequest
from .errors import ServerUnavailableError

T = TypeVar("T")

FIRST_WAIT_S = 0.1
"""Waits double from here on, each with a random part."""
LONGEST_WAIT_S: Final = 2.0

log = logging.getLogger("neuro_latent_client")


async def retried(
    attempt: Callable[[InferRequest], Coroutine[Any, Any, T]], request: InferRequest, retries: int, *, blocking: bool
) -> T:
    """Make up to ``1 + retries`` attempts; the error of the last one is raised. The first that fails is logged.

    Between two of them is the time that the server asks for, if it does. Where that is more than what is left of the
    call's, the caller hears at once what was wrong, and not only that it is late.
    """
    longest_wait_s = min(LONGEST_WAIT_S, request.timeout_s / 4)
    for number in itertools.count():
        try:
            return await attempt(request.sent_now())
        except ServerUnavailableError as error:
            wait_s = error.retry_after_s
            if wait_s is None:
                wait_s = min(longest_wait_s, FIRST_WAIT_S * (2**number + random.random()))
            if number >= retries or request.remaining_s <= max(wait_s, longest_wait_s):
                raise
            if not number:
                log.warning("%s. Trying again for up to %.0f s", error.message, request.remaining_s)
        if blocking:
            time.sleep(wait_s)
        else:
            await asyncio.sleep(wait_s)
    raise AssertionError
