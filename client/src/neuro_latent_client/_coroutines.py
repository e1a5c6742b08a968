"""Two ways to run a coroutine: at once, in the thread that asks, or in a task that outlives its caller.

What both clients do is written once, as coroutines. Those of the blocking client never suspend: its transports block.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine over a blocking transport, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("a blocking transport has awaited something")


class BackgroundTasks:
    """Coroutines that run in tasks of their own: they are finished even if their caller is cancelled."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await ``coroutine``. A caller that is cancelled stops waiting; the task goes on."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log an exception that nobody waits for

    async def finish(self, timeout_s: float) -> None:
        """Wait for all tasks, at most ``timeout_s`` seconds."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
