"""Work that is done although whoever waits for it is cancelled."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Errands:
    """Runs coroutines in tasks of their own."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, errand: Coroutine[Any, Any, T]) -> T:
        """Await ``errand``. A caller that is cancelled stops waiting; the errand goes on."""
        task = asyncio.get_running_loop().create_task(errand)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # asked for, so that asyncio does not print what nobody waits for any more

    async def finish(self, timeout_s: float) -> None:
        """Wait for all errands, but not for ever."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
