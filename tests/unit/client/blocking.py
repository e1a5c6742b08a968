"""An AsyncClient used as a Client, so that one suite tests both."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from neuro_latent_client import AsyncClient

T = TypeVar("T")


class BlockingClient:
    """Its methods are the asynchronous ones, run to their end in the event loop of another thread."""

    def __init__(self, make: Callable[..., AsyncClient], *args: Any, **settings: Any) -> None:
        self.client = make(*args, **settings)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        for name in ("optimize", "optimize_many", "feedback", "health", "models", "adapters", "close"):
            setattr(self, name, self._blocking(getattr(self.client, name)))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def stream(self, *args: Any, **options: Any) -> "BlockingStream":
        return BlockingStream(self, self.client.stream(*args, **options))

    def _blocking(self, method: Callable[..., Coroutine[Any, Any, T]]) -> Callable[..., T]:
        return lambda *args, **options: self.run(method(*args, **options))

    def __repr__(self) -> str:
        return repr(self.client)

    def __enter__(self) -> "BlockingClient":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.run(self.client.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class BlockingStream:
    def __init__(self, blocking: BlockingClient, stream: Any) -> None:
        self.blocking, self.stream = blocking, stream

    def __iter__(self) -> "BlockingStream":
        return self

    def __next__(self) -> Any:
        async def next_piece() -> Any:
            return await anext(self.stream, None)  # StopAsyncIteration does not cross threads

        piece = self.blocking.run(next_piece())
        if piece is None:
            raise StopIteration
        return piece

    def __enter__(self) -> "BlockingStream":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        self.blocking.run(self.stream.close())

    @property
    def result(self) -> Any:
        return self.stream.result
