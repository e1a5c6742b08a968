"""Literals of a text: what has to be in another text exactly as it is written.

* **placeholders**, which a program fills in or looks for: ``{{x}}``, ``{x}``, ``{}``, ``{% if %}``, ``%s``,
  ``%(x)s``, ``${X}``, ``$VAR``, ``<x>``, ``[x]``; they also have to be there as often;
* **code**: fenced and inline, JSON, formulas, SQL, paths, flags, identifiers;
* **URLs** and e-mail addresses;
* **quoted text**, also over lines, and words of another language in an English text;
* **numbers**, with times, dates, versions, and amounts with their units.

Every pattern takes linear time: where a run of characters could be entered at each of its characters, a look-behind
admits the first only, and runs are possessive.
"""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

from neuro_latent_client.language import is_english
from neuro_latent_client.numbers import Amount, amounts

Kind = Literal["code", "url", "quoted text", "placeholder", "number"]

_FENCED: Final = re.compile(r"(```|~~~).*?(?:\1|\Z)", re.DOTALL)
_INLINE: Final = re.compile(r"``[^`]++``|`[^`\n]++`")
_SQL: Final = re.compile(r"\b(?:SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE TABLE|ALTER TABLE)\b[^\n;`]*+")
_SQL_WORD: Final = re.compile(r"\b(?:FROM|SET|VALUES|ADD|\()")
_FORMULA: Final = re.compile(r"\$\$[^$]++\$\$|(?<![\w$])\$[^$\n]++\$(?!\w)")
_FORMULA_SIGN: Final = re.compile(r"[\\^_={}]")
_URL: Final = re.compile(
    r"""(?<![\w+.-])[A-Za-z][A-Za-z0-9+.-]{1,15}://[^\s<>"'`]++|\bwww\.[^\s<>"'`]++"""
    r"""|(?<![\w.+-])[\w.+-]++@[\w-]++\.[\w.-]*\w"""
    r"""|(?<![\w@./-])(?:[\w-]++\.)+(?:com|org|net|io|dev|ai|edu|gov|de|fr|es|uk|app|info)(?![\w.]\w|\w)(?:/[^\s<>"'`]*+)?"""
)
_QUOTED: Final = re.compile(
    r"""(?<!\w)"[^"]++"|“[^“”]++”|„[^„“”"]++[“”"]|«[^«»]++»|‹[^‹›]++›|「[^「」]++」|『[^『』]++』"""
    r"""|(?<!\w)'(?:[^'\n]|(?<=\w)'(?=\w))+'(?!\w)|(?<!\w)‘(?:[^‘’\n]|(?<=\w)’(?=\w))+’(?!\w)"""
)
_AROUND: Final = {"code": "`", "quoted text": "\"“”„«»‹›「」『』'‘’"}
"""What a literal may lose around it without being lost itself."""
_BRACE: Final = re.compile(r"[{}]")
_PLACEHOLDER: Final = re.compile(
    r"</?[A-Za-z][\w.:-]*+(?:\s[^<>]*+)?/?>|<\|[^<>|\n]++\|>|\[[^\[\]\n]{1,80}\]|%\(\w++\)[a-z]"
    r"|(?<![\w%])%[-+#0]*+\d*+(?:\.\d++)?[sdifgexXcu](?!\w)|%[A-Z_]{2,40}%|\$[A-Za-z_]\w*+"
)
_CODE_WORD: Final = re.compile(
    r"(?<!\w)(?:[A-Za-z]\+\+|[A-Z]#|\.NET)(?!\w)"
    r"|(?<![\w.@/-])[A-Za-z_]\w*+(?:\.[A-Za-z_]\w*+)*+(?:\(\))?"  # see _is_identifier
    r"|(?<![\w-])--[A-Za-z][\w-]*+|(?<![\w./])(?:~|\.{1,2})?/\w[\w./-]*+|(?<!\w)[@#][A-Za-z_]\w++"
)
_CODE_SIGN: Final = re.compile(r"(?<!\S)[^\s\\^=|]*+[\\^=|]\S*+")
_FOREIGN: Final = re.compile(r"(?<!\w)[A-Za-z]*+[^\W\d_A-Za-z²³¹½¼¾ªº]\w*+")
_END: Final = ".,:;!?"


@dataclass(frozen=True, slots=True)
class Found:
    """A literal of a text: its kind, and how it is written."""

    kind: Kind
    text: str

    @property
    def core(self) -> str:
        """Without quotes or backticks around it."""
        return self.text.strip(_AROUND.get(self.kind, "")) or self.text


class Text:
    """A text and what is found in it, each looked for once.

    Args:
        text: any text.
    """

    def __init__(self, text: str) -> None:
        self.text = text.replace("\r\n", "\n").replace("\r", "\n")

    @cached_property
    def literals(self) -> list[Found]:
        """All literals, each once, in their order."""
        found: dict[Found, int] = {}
        rest = self.text
        for kind, spans in _FINDERS:
            taken = list(spans(rest))
            for start, end in taken:
                found.setdefault(_found(kind, rest[start:end]), start)
            rest = _blanked(rest, taken)
        for amount in amounts(rest):
            found.setdefault(Found("number", amount.text), amount.start)
        return sorted(found, key=found.__getitem__)

    @cached_property
    def placeholders(self) -> Counter[str]:
        """How often each placeholder and each pair of braces is there, also inside of code and quotes."""
        return Counter(self.text[start:end] for spans in (_braces, _placeholders) for start, end in spans(self.text))

    @cached_property
    def urls(self) -> frozenset[str]:
        """All URLs and addresses, also inside of code and quotes."""
        return frozenset(self.text[start:end] for start, end in _urls(self.text))

    @cached_property
    def amounts(self) -> frozenset[Amount]:
        """All numbers, also inside of code and quotes."""
        return frozenset(amounts(_blanked(self.text, list(_urls(self.text)))))

    @cached_property
    def single_spaced(self) -> str:
        """With single spaces, to look for text that may be wrapped elsewhere."""
        return _single_spaced(self.text)

    def has(self, literal: Found) -> bool:
        """Whether it has a literal of another text; placeholders are counted by :meth:`lacks`."""
        if literal.kind == "url":
            return literal.text in self.urls
        if literal.kind == "number":
            return any(wanted.is_in(self.amounts) for wanted in amounts(literal.text))
        if "\n" in literal.text and literal.text.startswith(("```", "~~~")):
            return _trimmed(literal.core.strip("~\n")) in _trimmed(self.text)
        return _stands_in(_single_spaced(literal.core), self.single_spaced)

    def lacks(self, other: "Text") -> Iterator[Found]:
        """Literals of the other text that this one has not, or not as often."""
        fewer = other.placeholders - self.placeholders
        for text in fewer:
            yield _found("placeholder", text)
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


Span = tuple[int, int]


def _matches(pattern: re.Pattern[str], text: str) -> Iterator[Span]:
    return (match.span() for match in pattern.finditer(text))


def _code(text: str) -> Iterator[Span]:
    yield from _matches(_FENCED, text)
    text = _blanked(text, list(_matches(_FENCED, text)))
    yield from _matches(_INLINE, text)
    for match in _SQL.finditer(_blanked(text, list(_matches(_INLINE, text)))):
        if _SQL_WORD.search(match.group()):
            yield match.start(), match.start() + len(match.group().rstrip())


def _formulas(text: str) -> Iterator[Span]:
    for match in _FORMULA.finditer(text):
        if _FORMULA_SIGN.search(match.group()):
            yield match.span()


def _braces(text: str) -> Iterator[Span]:
    """Outermost pairs of braces, with a ``$``, ``#`` or ``@`` before them."""
    opened: list[int] = []
    spans: list[Span] = []
    for match in _BRACE.finditer(text):
        at = match.start()
        if match.group() == "{":
            opened.append(at)
        elif opened:
            start = opened.pop()
            while spans and spans[-1][0] > start:
                spans.pop()
            spans.append((start, at + 1))
    for start, end in spans:
        yield start - (text[start - 1 : start] in ("$", "#", "@")), end


def _placeholders(text: str) -> Iterator[Span]:
    return _matches(_PLACEHOLDER, text)


def _found(kind: Kind, text: str) -> Found:
    """What stands in braces and is too much for a name is code."""
    is_code = kind == "placeholder" and (len(text) > 80 or any(sign in text for sign in '":;\n'))
    return Found("code" if is_code else kind, text)


def _urls(text: str) -> Iterator[Span]:
    """Without the punctuation behind them; a bracket that was opened inside belongs to them."""
    for match in _URL.finditer(text):
        url = match.group()
        end = len(url)
        surplus = {")": url.count(")") - url.count("("), "]": url.count("]") - url.count("[")}
        while url[end - 1] in _END or surplus.get(url[end - 1], 0) > 0:
            if url[end - 1] in surplus:
                surplus[url[end - 1]] -= 1
            end -= 1
        yield match.start(), match.start() + end


def _quoted(text: str) -> Iterator[Span]:
    for match in _QUOTED.finditer(text):
        if match.group().strip(_AROUND["quoted text"]).strip():
            yield match.span()


def _code_words(text: str) -> Iterator[Span]:
    for match in _CODE_SIGN.finditer(text):
        word = match.group().rstrip(_END + ")")
        if any(map(str.isalnum, word)):
            yield match.start(), match.start() + len(word)
    text = _blanked(text, list(_matches(_CODE_SIGN, text)))
    for match in _CODE_WORD.finditer(text):
        word = match.group().rstrip(_END)
        if not (word[0].isalpha() or word[0] == "_") or word[-1] in "+#" or _is_identifier(word):
            yield match.start(), match.start() + len(word)


def _is_identifier(word: str) -> bool:
    """Whether snake_case, camelCase, a call or a dotted name; no "e.g." and no "end.Next" of hasty typing.

    >>> [_is_identifier(word) for word in ("last_name", "getName", "main()", "p5.js", "e.g", "end.Next", "word")]
    [True, True, True, True, False, False, False]
    """
    if word.endswith("()") or "_" in word.strip("_") or word.startswith("__"):
        return True
    if any(before.islower() and letter.isupper() for before, letter in itertools.pairwise(word)):
        return True
    parts = word.split(".")
    return len(parts) > 1 and max(map(len, parts)) > 1 and not (parts[1][:1].isupper() and parts[0].islower())


def _foreign(text: str) -> Iterator[Span]:
    return _matches(_FOREIGN, text) if is_english(text) else iter(())


_FINDERS: Final[tuple[tuple[Kind, Callable[[str], Iterator[Span]]], ...]] = (
    ("code", _code),
    ("code", _formulas),
    ("url", _urls),
    ("placeholder", _braces),
    ("quoted text", _quoted),
    ("placeholder", _placeholders),
    ("code", _code_words),
    ("quoted text", _foreign),
)
"""In the order in which they are looked for: a number inside of a URL is part of that URL."""


def _blanked(text: str, spans: list[Span]) -> str:
    """With line ends in place of what is taken, so that positions stay and nothing is found across."""
    parts, at = [], 0
    for start, end in sorted(spans):
        parts += [text[at:start], "\n" * (end - max(start, at))]
        at = max(end, at)
    return "".join([*parts, text[at:]])


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
