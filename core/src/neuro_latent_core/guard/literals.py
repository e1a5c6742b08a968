"""Literals of a text: what has to be in another text exactly as it is written.

* **placeholders**, which a program fills in or looks for: ``{{x}}``, ``{x}``, ``{}``, ``{% if %}``, ``%s``,
  ``%(x)s``, ``${X}``, ``$VAR``, ``<x>``, ``[x]``; they also have to be there as often;
* **code**: fenced and inline, JSON, formulas, SQL, paths, flags, identifiers;
* **URLs** and e-mail addresses;
* **quoted text**, also over lines, and words of another language in an English text;
* **numbers**, with times, dates, versions, and amounts with their units.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from neuro_latent_core.guard import spans
from neuro_latent_core.guard.numbers import Amounts, amounts
from neuro_latent_core.guard.spans import Kind


@dataclass(frozen=True, slots=True)
class Found:
    """A literal of a text: its kind, and how it is written."""

    kind: Kind
    text: str

    @property
    def core(self) -> str:
        """Without quotes or backticks around it."""
        return self.text.strip(spans.AROUND.get(self.kind, "")) or self.text


class Text:
    """A text and what is found in it, each looked for once.

    Args:
        text: any text.
    """

    def __init__(self, text: str) -> None:
        self.text = text.replace("\r\n", "\n").replace("\r", "\n")

    @property
    def literals(self) -> list[Found]:
        """All literals, each once, in their order."""
        return self._found[0]

    @cached_property
    def _found(self) -> tuple[list[Found], Amounts]:
        """The literals, and the numbers among them."""
        found: dict[Found, int] = {}
        rest = self.text
        for kind, find in spans.FINDERS:
            taken = list(find(rest))
            for start, end in taken:
                found.setdefault(_literal(kind, self.text[start:end]), start)
            rest = spans.blanked(rest, taken)
        numbers = list(amounts(rest))
        for amount in numbers:
            found.setdefault(Found("number", amount.text), amount.start)
        return sorted(found, key=found.__getitem__), Amounts(numbers)

    @cached_property
    def _amounts(self) -> Amounts:
        """All numbers, also inside of code and quotes."""
        return Amounts(amounts(spans.blanked(self.text, list(spans.urls(self.text)))))

    @cached_property
    def placeholders(self) -> Counter[str]:
        """How often each placeholder and each pair of braces is there, also inside of code and quotes."""
        return Counter(
            self.text[start:end] for find in (spans.braces, spans.placeholders) for start, end in find(self.text)
        )

    @cached_property
    def urls(self) -> frozenset[str]:
        """All URLs and addresses, also inside of code and quotes."""
        return frozenset(self.text[start:end] for start, end in spans.urls(self.text))

    @cached_property
    def single_spaced(self) -> str:
        """With single spaces, to look for text that may be wrapped elsewhere."""
        return _single_spaced(self.text)

    def has(self, literal: Found) -> bool:
        """Whether it has a literal of another text; placeholders are counted by :meth:`lacks`."""
        if literal.kind == "url":
            return literal.text in self.urls
        if literal.kind == "number":
            wanted = list(amounts(literal.text))
            return any(amount in self._amounts or amount in self._found[1] for amount in wanted)
        if "\n" in literal.text and literal.text.startswith(("```", "~~~")):
            return _trimmed(literal.core.strip("~\n")) in _trimmed(self.text)
        return _stands_in(_single_spaced(literal.core), self.single_spaced)

    def lacks(self, other: "Text") -> Iterator[Found]:
        """Literals of the other text that this one has not, or not as often."""
        fewer = other.placeholders - self.placeholders
        for text in fewer:
            yield _literal("placeholder", text)
        for literal in other.literals:
            if literal.text not in other.placeholders and not self.has(literal):
                yield literal


def literals(text: str) -> list[Found]:
    """All literals of a text, each once, in their order.

    >>> [found.text for found in literals('Sort {items} by "last name", 10 a page; see https://a.org/x.')]
    ['{items}', '"last name"', '10', 'https://a.org/x']
    """
    return Text(text).literals


def missing(raw: str, enhanced: str) -> list[Found]:
    """Literals of the raw prompt that the enhanced one does not have, each once."""
    return list(dict.fromkeys(Text(enhanced).lacks(Text(raw))))


def _literal(kind: Kind, text: str) -> Found:
    """What stands in braces and is too much for a name is code."""
    is_code = kind == "placeholder" and (len(text) > 80 or any(sign in text for sign in '":;\n'))
    return Found("code" if is_code else kind, text)


def _single_spaced(text: str) -> str:
    return " ".join(text.split())


def _trimmed(text: str) -> str:
    """Without white space at the ends of lines."""
    return "\n".join(line.rstrip() for line in text.split("\n"))


def _stands_in(core: str, text: str) -> bool:
    """Whether a text has it, not as a part of a longer word."""
    at = text.find(core)
    while at >= 0:
        before, after = text[at - 1 : at] if at else "", text[at + len(core) : at + len(core) + 1]
        if not (_in_word(before) and _in_word(core[:1])) and not (_in_word(after) and _in_word(core[-1:])):
            return True
        at = text.find(core, at + 1)
    return False


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_"
