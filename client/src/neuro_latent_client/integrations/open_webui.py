"""A filter of Open WebUI: a switch below the chat's input makes prompts better before the model gets them.

>>> import asyncio
>>> chat = {"messages": [{"role": "user", "content": "Create a function"}]}
>>> asyncio.run(Filter(lambda url, api_key: async_client).inlet(chat))["messages"][0]["content"]
'Create a function\\n\\nIn Python.'
"""

from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import BaseModel, Field

from neuro_latent_client import AsyncClient, InvalidRequestError
from neuro_latent_client.chat import ChatOptimizer, log


class Filter:
    """What Open WebUI looks for in a function's code: ``Valves`` are its settings, ``inlet`` gets each chat request.

    Args:
        connect: makes the optimizer's client of an address and a key.
    """

    class Valves(BaseModel):
        """Settings that an administrator sees."""

        priority: int = Field(default=0, description="Filters with a lower number run before this one.")
        url: str = Field(default="grpc://127.0.0.1:8001", description="The optimizer.")
        api_key: str = Field(default="", description="Where the optimizer asks for one.")
        seconds: float = Field(default=0.3, gt=0, description="After these the prompt goes on as it is.")
        every_turn: bool = Field(default=False, description="Also where an assistant has answered before.")

    def __init__(self, connect: Callable[..., AsyncClient] = AsyncClient) -> None:
        self.valves = self.Valves()
        self.toggle = True
        self._connect = connect
        self._made: tuple[Filter.Valves, ChatOptimizer] | None = None

    async def inlet(
        self, body: dict[str, Any], __event_emitter__: Callable[[dict[str, Any]], Awaitable[None]] | None = None
    ) -> dict[str, Any]:
        """Make the last message of a chat better; what was added is shown above the answer."""
        if self._made is None or self._made[0] != self.valves:
            limits: dict[str, Any] = {"budget_s": self.valves.seconds, "every_turn": self.valves.every_turn}
            try:
                client = self._connect(self.valves.url, api_key=self.valves.api_key or None)
                self._made = self.valves.model_copy(), ChatOptimizer(client, **limits)
            except InvalidRequestError as error:  # of the address or the key
                log.warning("nothing is added: %s", error)
                return body
        outcome = await self._made[1].improve(body)
        if outcome.word == "added" and __event_emitter__ is not None:
            shown = {"description": f"Added to your prompt: {outcome.added}", "done": True}
            await __event_emitter__({"type": "status", "data": shown})
        return body
