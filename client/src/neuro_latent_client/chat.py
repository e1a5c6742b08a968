"""Better prompts in chat requests of OpenAI's shape: what a gateway, a proxy's hook or a chat front end's filter needs.

A request never waits or gets lost because of the optimizer: after a time budget, and where the server fails, it goes on
as it was. Everything else in it stays as it is: other messages, tools, images, fields that nobody here knows.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any, Final

from neuro_latent_core.limits import MAX_PROMPT_CHARACTERS

from .async_client import AsyncClient
from .errors import InvalidRequestError, NeuroLatentError
from .results import Optimization

log = logging.getLogger("neuro_latent_client")

SWITCH: Final = "x-neuro-latent"
"""The header of a request that says ``off``; requests to which something was added go on with ``done`` in it."""

FAILURES: Final = 3
"""So many in a row open the breaker."""
OPEN_S: Final = 5.0
"""How long nobody is asked then."""


@dataclass(frozen=True, slots=True)
class Place:
    """A text within the body of a request.

    Attributes:
        holder: the object that has it.
        name: of the field.
        first_turn: whether no assistant has answered before.
    """

    holder: dict[str, Any]
    name: str
    first_turn: bool

    @property
    def text(self) -> str:
        text: str = self.holder[self.name]
        return text

    def put(self, text: str) -> None:
        """Write another text in its place."""
        self.holder[self.name] = text


class Untouched(Exception):
    """A request to which nothing is added; its text says why, in a word for a header and the log."""


def find_prompt(body: Any) -> Place:
    """The text of the user's last message, of a body of ``chat/completions`` or ``responses``.

    Raises:
        Untouched: the last message is none of the user's, or has no text or several.
    """
    if not isinstance(body, dict):
        raise Untouched("no object")
    kept = bool(body.get("previous_response_id") or body.get("conversation"))  # the server has what was said before
    if isinstance(body.get("input"), str):
        return Place(body, "input", first_turn=not kept)
    messages = body.get("messages", body.get("input"))
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise Untouched("no messages")
    last = messages[-1]
    if last.get("role") != "user":
        raise Untouched("not the user's turn")  # a tool's result, or a text that is to be gone on with
    answered = kept or any(
        one.get("role", "assistant") == "assistant" for one in messages
    )  # calls of tools have no role
    if isinstance(last.get("content"), str):
        return Place(last, "content", not answered)
    parts = last.get("content")
    texts = [
        part
        for part in (parts if isinstance(parts, list) else ())
        if isinstance(part, dict) and part.get("type") in ("text", "input_text") and isinstance(part.get("text"), str)
    ]
    if len(texts) != 1:
        raise Untouched("several texts" if texts else "no text")
    return Place(texts[0], "text", not answered)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request.

    Attributes:
        word: ``added``, ``shadow``, or why nothing was added; ``docs/gateways.md`` has the list.
        answer: the optimizer's; None where it was not asked or did not answer.
    """

    word: str
    answer: Optimization | None = None

    @property
    def added(self) -> str:
        """What the optimizer would put, or has put, behind the prompt; a whole text where it rewrites; else ""."""
        return "" if self.answer is None or self.answer.unchanged else self.answer.added or self.answer.text


class ChatOptimizer:
    """Makes the user's last message of a request better, or leaves it.

    Args:
        client: of the optimizer; used by one event loop.
        budget_s: seconds after which a prompt goes on as it is.
        longest: nothing is added to a message of more characters.
        every_turn: add also where an assistant has answered before.
        shadow: ask, but change nothing.

    >>> body = {"messages": [{"role": "user", "content": "Create a function"}]}
    >>> asyncio.run(ChatOptimizer(async_client).improve(body)).word
    'added'
    >>> body["messages"][0]["content"]
    'Create a function\\n\\nIn Python.'
    """

    def __init__(
        self,
        client: AsyncClient,
        *,
        budget_s: float = 0.3,
        longest: int = 2000,
        every_turn: bool = False,
        shadow: bool = False,
    ) -> None:
        self._client, self._budget_s = client, budget_s
        self._longest, self._every_turn, self._shadow = min(longest, MAX_PROMPT_CHARACTERS), every_turn, shadow
        self._failures, self._open_until_s = 0, 0.0
        self._asking: set[asyncio.Task[Optimization]] = set()

    async def improve(self, body: Any, switch: str = "") -> Outcome:
        """Put a better prompt into a request; raises nothing of its own.

        Args:
            body: of ``chat/completions`` or ``responses``; changed in place.
            switch: the value of the request's header :data:`SWITCH`.
        """
        try:
            if (said := switch.strip().lower()) in ("off", "done"):
                raise Untouched(said)
            place = find_prompt(body)
            self._check_wanted(place)
            answer = await self._ask(place.text)
        except Untouched as why:
            return Outcome(str(why))
        if answer.unchanged:
            return Outcome(answer.finish_reason, answer)
        if self._shadow:
            return Outcome("shadow", answer)
        place.put(answer.text)
        return Outcome("added", answer)

    def _check_wanted(self, place: Place) -> None:
        if not place.first_turn and not self._every_turn:
            raise Untouched("a later turn")
        if not place.text.strip():
            raise Untouched("blank")
        if len(place.text) > self._longest:
            raise Untouched("long")
        if "```" in place.text:
            raise Untouched("code")

    async def _ask(self, prompt: str) -> Optimization:
        """The answer, unless the breaker is open, the time is up, or asking fails."""
        now = time.monotonic()
        if now < self._open_until_s:
            raise Untouched("unavailable")
        if self._failures >= FAILURES:
            self._open_until_s = now + OPEN_S  # this one finds out; the others do not wait for it
        asking = asyncio.ensure_future(self._client.optimize(prompt, timeout=self._budget_s))
        self._asking.add(asking)
        asking.add_done_callback(self._forget)
        try:  # a task, for a call that is given up tells the server first, for which no prompt waits
            await asyncio.wait({asking}, timeout=self._budget_s)
            if not asking.done():
                raise TimeoutError
            answer = asking.result()
        except InvalidRequestError as error:  # the server answers, or was not asked: the next one may ask it
            self._open_until_s = 0.0
            raise Untouched("refused") from error
        except (TimeoutError, NeuroLatentError) as error:
            self._failures += 1
            if self._failures >= FAILURES:
                self._open_until_s = time.monotonic() + OPEN_S
                log.warning("nothing is added for %g s: %s: %s", OPEN_S, type(error).__name__, error)
            raise Untouched("late" if isinstance(error, TimeoutError) else "failed") from error
        finally:
            asking.cancel()
        self._failures, self._open_until_s = 0, 0.0
        return answer

    def _forget(self, asking: "asyncio.Task[Optimization]") -> None:
        self._asking.discard(asking)
        if not asking.cancelled():
            asking.exception()  # has been looked at
