"""The grammar of requests (``research/data/requests``): kinds of request, their forms, slots and details.

A tenth of the kinds, chosen by a hash of their names, is kept out of all training, and so is an eighth of the forms of
the others. ``details`` of a kind are sentences that an expert would put behind a request of that kind.
"""

import hashlib
import random
import re
import string
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

DATA = Path(__file__).parents[1] / "data"
HELD_OUT_KINDS, HELD_OUT_FORMS, HELD_OUT_ROWS = 10, 8, 10
"""One in so many is held out."""
ENDINGS = ("", "", "", "", "", "", ".", "?", "!", " please", " pls", " thanks")
PASTED = re.compile(r"\b(this|these|below|following)\b")


def one_in(n: int, text: str) -> bool:
    """Whether a text falls into the held-out share of one in ``n``: the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.strip().lower().encode()).digest()[:6], "big") % n == 0


@dataclass(frozen=True)
class Kind:
    """One kind of request.

    Attributes:
        forms: how people ask, with ``{slots}``; those to train on.
        held_out_forms: the others.
        details: what may stand behind a request of this kind.
        slots: what may stand for each slot.
    """

    name: str
    domain: str
    forms: tuple[str, ...]
    held_out_forms: tuple[str, ...]
    details: tuple[str, ...]
    slots: dict[str, tuple[str, ...]]

    @property
    def held_out(self) -> bool:
        """Whether it is kept out of training."""
        return one_in(HELD_OUT_KINDS, self.name)

    def request(self, rng: random.Random, form: str) -> str:
        """A request of one form, as someone types it."""
        named = dict.fromkeys(name for _, name, _, _ in string.Formatter().parse(form) if name)  # in one order always
        text = form.format_map({name: rng.choice(self.slots[name]) for name in named})
        text = re.sub(r"\ba (?=[aeiou])", "an ", " ".join(text.split()))
        if not form.endswith("}") or rng.random() < 0.3:
            ending = rng.choice(ENDINGS)
            text = (text.rstrip("?.!") if ending in (".", "?", "!") else text) + ending
        return text[0].upper() + text[1:] if rng.random() < 0.35 else text


@cache
def kinds() -> tuple[Kind, ...]:
    """All kinds, in the order of their files."""
    found = []
    for path in sorted((DATA / "requests").glob("*.toml")):
        grammar = tomllib.loads(path.read_text(encoding="utf-8"))
        shared = {name: tuple(values) for name, values in grammar.get("slots", {}).items()}
        for task in grammar["task"]:
            slots = shared | {
                name: tuple(values)
                for name, values in task.items()
                if name not in ("domain", "kind", "raw", "first", "details")
            }
            forms = task["raw"]
            held_out = [form for form in forms if one_in(HELD_OUT_FORMS, task["kind"] + form)][: len(forms) // 3]
            found.append(
                Kind(
                    task["kind"],
                    task["domain"],
                    tuple(form for form in forms if form not in held_out),
                    tuple(held_out),
                    tuple(task["details"]),
                    slots,
                )
            )
    return tuple(found)
