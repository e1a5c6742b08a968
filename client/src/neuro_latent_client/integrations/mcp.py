"""A server of the Model Context Protocol: assistants and editors call ``optimize`` and ``feedback`` as tools.

Needs ``pip install neuro-latent-client[mcp]``; ``neuro-latent mcp`` runs it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import Field

from neuro_latent_client import AsyncClient, NeuroLatentError, __version__
from neuro_latent_core.limits import MAX_PROMPT_CHARACTERS
from neuro_latent_core.options import OPTIONS
from neuro_latent_core.protocol import FEEDBACK_LIMITS

INSTRUCTIONS = (
    "optimize puts what an expert would add to a request behind it, or nothing where it is not sure. Show the better "
    "prompt to the user or use it in place of theirs; say with feedback whether it was any good."
)

RawPrompt = Annotated[
    str, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS, description="the prompt as the user wrote it")
]


@dataclass
class BetterPrompt:
    """What ``optimize`` gives.

    Attributes:
        enhanced_prompt: the prompt to use.
        added: what stands behind the raw prompt; "" where nothing does.
        reason: why a text was withheld, else "".
        request_id: for ``feedback``.
    """

    enhanced_prompt: str
    added: str
    reason: str
    request_id: str


@dataclass
class Stored:
    """What ``feedback`` gives: the id of what was stored, and whether it is new."""

    feedback_id: str
    created: bool


def make_server(connect: Callable[[], AsyncClient]) -> MCPServer:
    """The server; ``connect`` makes the client of the optimizer when a tool is first called."""
    server = MCPServer("neuro-latent", version=__version__, instructions=INSTRUCTIONS, log_level="WARNING")
    clients: list[AsyncClient] = []

    def client() -> AsyncClient:
        if not clients:
            clients.append(connect())
        return clients[0]

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    async def optimize(
        raw_prompt: RawPrompt,
        adapter: Annotated[str, Field(description="name of an adapter; by default the server's own")] = "default",
        max_length: Annotated[int, Field(ge=1, le=int(OPTIONS["max_length"].high))] = 200,
    ) -> BetterPrompt:
        """Make a prompt better: put behind it what an expert would add to such a request."""
        try:
            answer = await client().optimize(raw_prompt, adapter=adapter, max_length=max_length)
        except NeuroLatentError as error:
            raise ToolError(str(error)) from None
        return BetterPrompt(answer.text, answer.added, answer.reason, answer.request_id)

    @server.tool(annotations=ToolAnnotations(idempotent_hint=True))
    async def feedback(
        request_id: Annotated[str, Field(min_length=1, description="of the answer of optimize")],
        raw_prompt: RawPrompt,
        enhanced_prompt: Annotated[str, Field(max_length=FEEDBACK_LIMITS["enhanced_prompt"])],
        rating: Annotated[Literal[1, -1], Field(description="1 for a good answer, -1 for a bad one")],
        edited_prompt: Annotated[
            str, Field(max_length=FEEDBACK_LIMITS["edited_prompt"], description="what it should have been")
        ] = "",
        comment: Annotated[str, Field(max_length=FEEDBACK_LIMITS["comment"])] = "",
    ) -> Stored:
        """Say what an answer of optimize was worth; the optimizer learns from it."""
        try:
            receipt = await client().feedback(
                request_id,
                rating,
                raw_prompt=raw_prompt,
                enhanced_prompt=enhanced_prompt,
                edited_prompt=edited_prompt,
                comment=comment,
            )
        except NeuroLatentError as error:
            raise ToolError(str(error)) from None
        return Stored(receipt.feedback_id, receipt.created)

    return server
