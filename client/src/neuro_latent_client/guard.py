"""What an enhanced prompt must not lose, and when it is no prompt at all.

The server's last look at every text, and the measure of the same in evaluations. Plain rules on text, no model:

* **literals** of the raw prompt (code, URLs, quoted text, ``{placeholders}``, anything with a digit) that are missing
  are added at the end;
* a **degenerate** text (nothing to read, the same words again and again, broken characters) gives way to the raw
  prompt, and so does one that has lost too much to be mended, or the **subject**: hardly a word of the prompt is in it.
"""

import itertools
import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import Final, Literal

Verdict = Literal["kept", "mended", "replaced"]

_KINDS: Final = (
    ("code", re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)),
    ("url", re.compile(r"\b(?:https?://|www\.)[^\s<>\"'`]+|(?<![\w.+-])[\w.+-]+@[\w-]+\.[\w.]*\w")),
    ("quoted", re.compile(r"\"[^\"\n]+\"|“[^“”\n]+”|«[^«»\n]+»|(?<!\w)'[^'\n]+'(?!\w)|(?<!\w)‘[^‘’\n]+’(?!\w)")),
    ("placeholder", re.compile(r"\$?\{{1,2}[^{}\n]+\}{1,2}")),
    ("number", re.compile(r"(?<![\w.,:/%+-])[$€£#]?[\w.,:/%+-]+")),
)
"""In the order in which they are looked for: a number inside a URL is part of that URL. What has no digit is no number.
No pattern looks at a character more than a few times, whatever the text."""

_AROUND: Final = {"code": "`", "quoted": "\"“”«»'‘’"}
"""What a literal may lose around it without being lost itself."""

MOST_ADDED: Final = 8
"""With more literals missing, the raw prompt is the better prompt."""
MOST_ADDED_CHARACTERS: Final = 400

REPEATED_WORDS: Final = 4
MOST_REPEATED_SHARE: Final = 0.5
"""Of the sequences of four words, those that are there already. Prose has hardly any."""
LEAST_WORDS: Final = 12
"""Shorter texts repeat by chance."""
SAME_WORD_IN_A_ROW: Final = 5
LEAST_ALPHANUMERIC_SHARE: Final = 0.25
"""Of the visible characters, letters and digits of any script. Code has about a half."""
_CONTENT_WORD: Final = re.compile(r"[^\W\d_]{4,}")
_SPACED_SCRIPT: Final = re.compile(r"[a-z\u00df-\u024f]+")
"""Latin letters. What is written without spaces, or in another alphabet, is not cut into words to compare."""
_ASKING_WORDS: Final = (
    "about also been being could from give have help here into just like make more most need only other please should "
    "some such tell than thanks that their them then there these they this those very want were what when where which "
    "will with would write your"
)
_ASKING: Final = frozenset(_ASKING_WORDS.split())
"""Words of four letters or more that say nothing of what a prompt is about."""
STEM_LETTERS: Final = 4
"""Two words that begin with the same letters count as one: plan and planning, summarize and summary."""
LEAST_SUBJECT_SHARE: Final = 0.5
ENOUGH_SUBJECT_WORDS: Final = 2
"""A text keeps half of the prompt's content words, or two. So do 97 to 99 of a hundred published rewrites of users'
prompts (docs/experiments.md)."""
_BROKEN: Final = re.compile(r"�|<extra_id_\d+>|<pad>|</?s>|<unk>")


@dataclass(frozen=True, slots=True)
class Found:
    """A literal of a text: its kind (code, url, quoted, placeholder, number), and how it is written."""

    kind: str
    text: str

    @property
    def core(self) -> str:
        """Without quotes or backticks around it."""
        return self.text.strip(_AROUND.get(self.kind, ""))

    def is_in(self, text: str) -> bool:
        """Whether ``text``, with single spaces, has it; a number must not be part of a longer one."""
        core = _single_spaced(self.core)
        at = text.find(core)
        while self.kind == "number" and at >= 0 and not _stands_alone(text, at, at + len(core)):
            at = text.find(core, at + 1)
        return at >= 0


@dataclass(frozen=True, slots=True)
class Guarded:
    """A text after the guard.

    Attributes:
        text: what to give.
        verdict: ``kept`` as it was, ``mended`` (literals added) or ``replaced`` by the raw prompt.
    """

    text: str
    verdict: Verdict


def _single_spaced(text: str) -> str:
    return " ".join(text.split())


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether neither ``3`` in ``13``, nor in ``3.5``."""
    before, after = text[start - 1 : start], text[end : end + 2]
    return not (before.isalnum() or before in ("_", ".")) and not (
        after[:1].isalnum() or after[:1] == "_" or (after[:1] in (".", ",") and after[1:].isdigit())
    )


def literals(text: str) -> list[Found]:
    """All literals of a text, each once, in their order.

    >>> [found.text for found in literals('Sort {items} by "last name", 10 a page; see https://a.org/x.')]
    ['{items}', '"last name"', '10', 'https://a.org/x']
    """
    found: dict[Found, int] = {}
    rest = text
    for kind, pattern in _KINDS:
        for match in pattern.finditer(rest):
            literal = Found(kind, match.group() if kind in ("code", "quoted") else match.group().rstrip(".,:;!?)/-+"))
            if literal.core.strip() and (kind != "number" or any(map(str.isdigit, literal.text))):
                found.setdefault(literal, match.start())
        # Of the same length, so that positions stay those of the text; no literal reaches over the end of a line.
        rest = pattern.sub(lambda match: "\n" * len(match.group()), rest)
    return sorted(found, key=found.__getitem__)


def missing(raw: str, enhanced: str) -> list[Found]:
    """Literals of the raw prompt that the enhanced one does not have."""
    text = _single_spaced(enhanced)
    return [literal for literal in literals(raw) if not literal.is_in(text)]


def is_degenerate(text: str) -> bool:
    """Whether a text is nothing that anybody could use: empty, broken characters, or the same words over and over.

    >>> is_degenerate("Explain how photosynthesis works, step by step."), is_degenerate("the " * 20), is_degenerate(" ")
    (False, True, True)
    """
    if not text.strip() or _BROKEN.search(text):
        return True
    visible = [c for c in text if not c.isspace()]
    if sum(c.isalnum() for c in visible) < LEAST_ALPHANUMERIC_SHARE * len(visible):
        return True
    words = re.findall(r"\w+", text.lower())
    run = 1
    for before, word in itertools.pairwise(words):
        run = run + 1 if word == before else 1
        if run >= SAME_WORD_IN_A_ROW and not word.isdigit():
            return True
    if len(words) < LEAST_WORDS:
        return False
    sequences = Counter(zip(*(words[i:] for i in range(REPEATED_WORDS)), strict=False))
    total = sequences.total()
    return total - len(sequences) > MOST_REPEATED_SHARE * total


def _subject(text: str) -> set[str]:
    words = (word for word in _CONTENT_WORD.findall(text.lower()) if word not in _ASKING)
    return {word[:STEM_LETTERS] for word in words if _SPACED_SCRIPT.fullmatch(word)}


def is_off_subject(raw: str, enhanced: str) -> bool:
    """Whether a text has lost what the raw prompt is about: of its content words too few are left.

    >>> is_off_subject("plan a trip to Rome", "Write a program that counts the lines of a file.")
    True
    >>> is_off_subject("plan a trip to Rome", "Act as a travel guide and plan three days in Rome.")
    False
    """
    subject = _subject(raw)
    least = min(math.ceil(LEAST_SUBJECT_SHARE * len(subject)), ENOUGH_SUBJECT_WORDS)
    return len(subject & _subject(enhanced)) < least


def guard(raw: str, enhanced: str) -> Guarded:
    """Have a text keep what it must keep.

    >>> guard("Name 3 rivers in France.", "List rivers in France, with their lengths.")
    Guarded(text='List rivers in France, with their lengths. Keep exactly: 3.', verdict='mended')
    """
    if (is_degenerate(enhanced) or is_off_subject(raw, enhanced)) and not is_degenerate(raw):
        return Guarded(raw, "replaced")
    lost = missing(raw, enhanced)
    if not lost:
        return Guarded(enhanced, "kept")
    added = ", ".join(literal.text for literal in lost)
    if len(lost) > MOST_ADDED or len(added) > MOST_ADDED_CHARACTERS:
        return Guarded(raw, "replaced")
    end = "" if enhanced.rstrip().endswith((".", "!", "?", ":", "`")) else "."
    return Guarded(f"{enhanced.rstrip()}{end} Keep exactly: {added}.", "mended")
