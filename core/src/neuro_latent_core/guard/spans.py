"""Where literals of each kind stand in a text.

Every pattern takes linear time: where a run of characters could be entered at each of its characters, a look-behind
admits the first only, and runs are possessive.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Final, Literal

from neuro_latent_core.guard.language import is_english

Span = tuple[int, int]
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
AROUND: Final = {"code": "`", "quoted text": "\"“”„«»‹›「」『』'‘’"}
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


def _matches(pattern: re.Pattern[str], text: str) -> Iterator[Span]:
    return (match.span() for match in pattern.finditer(text))


def _code(text: str) -> Iterator[Span]:
    yield from _matches(_FENCED, text)
    text = blanked(text, list(_matches(_FENCED, text)))
    yield from _matches(_INLINE, text)
    for match in _SQL.finditer(blanked(text, list(_matches(_INLINE, text)))):
        if _SQL_WORD.search(match.group()):
            yield match.start(), match.start() + len(match.group().rstrip())


def _formulas(text: str) -> Iterator[Span]:
    for match in _FORMULA.finditer(text):
        if _FORMULA_SIGN.search(match.group()):
            yield match.span()


def braces(text: str) -> Iterator[Span]:
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


def placeholders(text: str) -> Iterator[Span]:
    return _matches(_PLACEHOLDER, text)


def urls(text: str) -> Iterator[Span]:
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
        if match.group().strip(AROUND["quoted text"]).strip():
            yield match.span()


def _code_words(text: str) -> Iterator[Span]:
    for match in _CODE_SIGN.finditer(text):
        word = match.group().rstrip(_END + ")")
        if any(map(str.isalnum, word)):
            yield match.start(), match.start() + len(word)
    text = blanked(text, list(_matches(_CODE_SIGN, text)))
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


FINDERS: Final[tuple[tuple[Kind, Callable[[str], Iterator[Span]]], ...]] = (
    ("code", _code),
    ("code", _formulas),
    ("url", urls),
    ("placeholder", braces),
    ("quoted text", _quoted),
    ("placeholder", placeholders),
    ("code", _code_words),
    ("quoted text", _foreign),
)
"""In the order in which they are looked for: a number inside of a URL is part of that URL."""


def blanked(text: str, spans: list[Span]) -> str:
    """With line ends in place of what is taken, so that positions stay and nothing is found across."""
    parts, at = [], 0
    for start, end in sorted(spans):
        parts += [text[at:start], "\n" * (end - max(start, at))]
        at = max(end, at)
    return "".join([*parts, text[at:]])
