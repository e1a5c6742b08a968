"""Where the user's last text stands in a request of OpenAI's API, and when nothing is to be added to it.

Everything else of the request stays as it is: other messages, tools, images, fields that nobody here knows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neuro_latent_core.limits import MAX_PROMPT_CHARACTERS

SWITCH = "x-neuro-latent"
"""The header of a request that says ``off``; requests that went through here have ``done`` in it."""


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
    """A request to which nothing is to be added; its text says why, for a header and the log."""


def find_prompt(body: Any) -> Place:
    """The text of the user's last message, of a body of ``chat/completions`` or ``responses``.

    Raises:
        Untouched: the last message is none of the user's, or has no text or several.
    """
    if not isinstance(body, dict):
        raise Untouched("no object")
    if isinstance(body.get("input"), str):
        return Place(body, "input", first_turn=not body.get("previous_response_id"))
    messages = body.get("messages", body.get("input"))
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise Untouched("no messages")
    last = messages[-1]
    if last.get("role") != "user":
        raise Untouched("not the user's turn")  # a tool's result, or a text that is to be gone on with
    answered = any(one.get("role") == "assistant" for one in messages) or bool(body.get("previous_response_id"))
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


def check_wanted(place: Place, headers: Mapping[str, str], longest: int, every_turn: bool) -> None:
    """Check that something may be added.

    Args:
        headers: of the request, by lower-case names.
        longest: characters of a text to which something is added.
        every_turn: also where an assistant has answered before.

    Raises:
        Untouched: with the rule that says no.
    """
    if (said := headers.get(SWITCH, "").strip().lower()) in ("off", "done"):
        raise Untouched(said)
    if not place.first_turn and not every_turn:
        raise Untouched("a later turn")
    if not place.text.strip():
        raise Untouched("blank")
    if len(place.text) > min(longest, MAX_PROMPT_CHARACTERS):
        raise Untouched("long")
    if "```" in place.text:
        raise Untouched("code")
