"""Requests of everyday users, out of the instructions of the corpus, and the hasty version that someone might type.

They are short, whole and of one kind, which is what a generator of a few million parameters can learn to write; most
published rewrites are long and full of markup.
"""

import random
import re

HEAD, BLANK_LINE = "Instruction:\n", "\n\n"
"""How a document of the corpus begins that is an instruction, and what ends it (its input or its answer follows)."""

MIN_WORDS, MAX_WORDS = 5, 60
MIN_HASTY_WORDS = 3
TOOLS = "toolformer"
"""In instructions that describe a program's tools; their form is not a user's."""

_CODE = re.compile(
    r"\b(?:algorithm|API|array|bash|class|code|command|CSS|function|HTML|Java|JavaScript|loop|method|PHP|program|Python|"
    r"query|regex|Ruby|Rust|script|shell|snippet|SQL|string|variable)s?\b|\bC(?:\+\+|#)",
    re.IGNORECASE,
)

_DETAIL = re.compile(
    r"[,;:.?!]? (?=(?:that|which|who|for|with|without|using|in|on|about|and|to|by|from|including|explaining|such|so|if|"
    r"when|where|while|given|based)\b)|[,;:.?!] ",
)
"""Where a request could have ended: before a clause, a phrase or a sentence that adds something."""


def asks_for_code(text: str) -> bool:
    """Whether a text is about programs."""
    return _CODE.search(text) is not None


def is_request(text: str) -> bool:
    """Whether a text is one line of MIN_WORDS to MAX_WORDS words."""
    return "\n" not in text and TOOLS not in text and MIN_WORDS <= len(text.split()) <= MAX_WORDS


def request_of(document: str) -> str | None:
    """The request at the start of a document of the corpus, if there is one."""
    if not document.startswith(HEAD):
        return None
    text = document.removeprefix(HEAD).split(BLANK_LINE)[0].strip()
    return text if is_request(text) else None


def hasty(request: str, rng: random.Random) -> str | None:
    """A request without its later details: cut where it could have ended; None where it nowhere could.

    Half of them are typed carelessly, too: in small letters and without a full stop.
    """
    ends = [match.start() for match in _DETAIL.finditer(request)]
    ends = [end for end in ends if len(request[:end].split()) >= MIN_HASTY_WORDS]
    if not ends:
        return None
    text = request[: min(rng.choice(ends), rng.choice(ends))]  # more often an early one
    return text.lower() if rng.random() < 0.5 else text + ("?" if request.endswith("?") else ".")
