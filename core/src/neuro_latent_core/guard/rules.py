"""The rules by which a text is rejected.

The server's last look at what the model wrote, and the measure of the same in evaluations. Plain rules on text, no
model, linear in its length. A rejected text is not served; the raw prompt is, with the reason.

* Every text: blank, control tokens, loops, another language.
* A rewrite: literals that are missing or changed, and new ones; a lost subject or negation; an answer.
* A complement: a sentence twice, the prompt again, literals that the prompt has not, an unfinished sentence.
"""

import re
import unicodedata
from collections.abc import Callable
from typing import Final

from neuro_latent_core.form import Form
from neuro_latent_core.guard.answers import only_states, opens_as_an_answer
from neuro_latent_core.guard.language import english_words, is_english, language, languages, scripts
from neuro_latent_core.guard.literals import Found, Text
from neuro_latent_core.guard.loops import loops
from neuro_latent_core.guard.numbers import amounts
from neuro_latent_core.guard.repeats import repeats
from neuro_latent_core.guard.subject import FUNCTION_WORDS, lost_negation, lost_subject

NOT_SURE = "not sure enough"
"""The gate's reason; all others are the guard's."""
BLANK, CONTROL_TOKEN, LOOP, LANGUAGE = "blank", "control token", "loop", "another language"
OFF_SUBJECT, ANSWER = "off the subject", "an answer, not a prompt"
REPEATS, UNFINISHED = "repeats the prompt", "unfinished"
LOST, INVENTED = "lost or changed", "invented"
"""Reasons; the last two with the kind of the literal behind a colon."""

_INVISIBLE: Final = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0" + "".join(map(chr, range(0xFE00, 0xFE10)))
)
"""Fillers and variation selectors that Unicode counts as letters, signs or marks."""

_CONTROL_TOKEN: Final = re.compile(
    r"</?s>|<(?:unk|pad|mask|bos|eos|sep|cls)>|<extra_id_\d+>|<\|[a-z_]+\|>|\[(?:UNK|PAD|MASK|SEP|CLS|BOS|EOS|INST)\]"
    r"|[\ufffd\u2047\u2581\ufffe\uffff]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
)

_LEAST_ALPHANUMERIC_SHARE: Final = 0.25
"""Of the visible characters, letters and digits of any script. Code has about a half."""
_RULES: Final = frozenset("|-=_")
"""What tables and lines are drawn with does not count."""
_MOST_FOREIGN_LETTERS: Final = 0.1
_LEAST_ENGLISH_WORDS: Final = 0.15
_ENOUGH_WORDS: Final = 6

_SENTENCE_ENDS: Final = re.compile(r"[.!?…。！？｡।۔؟։።][\"'”’»」』)\]]*$")
_BETWEEN_SENTENCES: Final = re.compile(r"(?<=[.!?…])\s+")
_ABBREVIATED: Final = re.compile(r"\b(?:e\.g|i\.e|vs|incl|approx|esp|a|an|the|and|or|my|your)\.$", re.IGNORECASE)
_LONG_NUMBER: Final = re.compile(r"\d{4}|\d,\d{3}|\d:\d\d|[$€£¥]\d")


def rejects(raw: str, text: str, form: Form) -> str:
    """Why a text must not be served.

    Args:
        raw: the raw prompt.
        text: what the model wrote: the complement, or the whole rewrite. (An empty complement is an answer: nothing to
            add. Don't ask about it.)
        form: which of both it is.

    Returns:
        "" where it may be served, or the reason, a short fixed text that quotes neither of them.

    >>> rejects("plan a trip to Rome", "Act as a guide and plan a trip to Rome.", "rewrite")
    ''
    >>> rejects("Name 3 rivers in France.", "Name rivers in France.", "rewrite")
    'lost or changed: number'
    >>> rejects("explain tides", "Use a diagram, and end with", "complement")
    'unfinished'
    """
    if not any(map(str.isalnum, raw)):
        return OFF_SUBJECT
    for rule in (_unusable, _foreign, *(_COMPLEMENT if form == "complement" else _REWRITE)):
        if reason := rule(raw, text):
            return reason
    return ""


def is_blank(text: str) -> bool:
    """Whether nothing of a text can be seen: white space, zero-width and control characters, fillers.

    >>> is_blank(" \\u200b\\ufeff\\u3164\\n"), is_blank("-"), is_blank("🎉")
    (True, False, False)
    """
    return all(
        character.isspace() or character in _INVISIBLE or unicodedata.category(character) in ("Cc", "Cf", "Zs")
        for character in text
    )


def is_degenerate(text: str) -> bool:
    """Whether a text is nothing that anybody could use: blank, a loop, control tokens, hardly a letter.

    >>> is_degenerate("Explain how photosynthesis works, step by step."), is_degenerate("the " * 20), is_degenerate(" ")
    (False, True, True)
    """
    return bool(_unusable("", text))


def _unusable(raw: str, text: str) -> str:
    if is_blank(text):
        return BLANK
    known = set(_CONTROL_TOKEN.findall(raw))
    if any(token not in known for token in _CONTROL_TOKEN.findall(text)):
        return CONTROL_TOKEN
    if not any(map(str.isalnum, text)):
        return BLANK
    visible = [character for character in text if not (character.isspace() or character in _RULES)]
    if sum(map(str.isalnum, visible)) < _LEAST_ALPHANUMERIC_SHARE * len(visible):
        return LOOP
    return LOOP if loops(text) else ""


def _foreign(raw: str, text: str) -> str:
    """Another script than the prompt's, or another language as far as words tell."""
    before, now = scripts(raw) or {"latin": 1}, scripts(text)
    new = sum(letters for script, letters in now.items() if script not in before)
    if new > _MOST_FOREIGN_LETTERS * now.total():
        return LANGUAGE
    if is_english(raw):
        few = len(text.split()) >= _ENOUGH_WORDS and english_words(text) < _LEAST_ENGLISH_WORDS
        return LANGUAGE if not is_english(text) or few else ""
    if language(text) == "en":
        return LANGUAGE
    own, written = languages(raw), languages(text)
    return LANGUAGE if own and written and not own & written else ""


def _literals_changed(raw: str, text: str) -> str:
    before, now = Text(raw), Text(text)
    for found in now.lacks(before):
        return f"{LOST}: {found.kind}"
    for found in before.lacks(now):
        if not _may_be_new(found):
            return f"{INVENTED}: {found.kind}"
    return ""


def _may_be_new(found: Found) -> bool:
    """Small counts in words, and names like JavaScript."""
    if found.kind == "number":
        return all(amount.is_small_count for amount in amounts(found.text))
    return found.kind == "code" and found.text.isalnum()


def _subject_lost(raw: str, text: str) -> str:
    if lost_negation(raw, text):
        return f"{LOST}: negation"
    return OFF_SUBJECT if lost_subject(raw, text) else ""


def _answers(raw: str, text: str) -> str:
    if opens_as_an_answer(text) and not opens_as_an_answer(raw):
        return ANSWER
    return ANSWER if is_english(raw) and only_states(text) else ""


def _repeated(raw: str, text: str) -> str:
    return REPEATS if repeats(raw, text) else ""


def _said_twice(raw: str, text: str) -> str:
    sentences = [sentence for sentence in _BETWEEN_SENTENCES.split(text.lower()) if len(sentence.split()) >= 4]
    return LOOP if len(set(sentences)) < len(sentences) else ""


def _unfinished(raw: str, text: str) -> str:
    end = text.rstrip()
    if not _SENTENCE_ENDS.search(end[-8:]) or _ABBREVIATED.search(end[-12:]):
        return UNFINISHED
    return UNFINISHED if end.count("(") != end.count(")") or end.count('"') % 2 else ""


def _invented(raw: str, text: str) -> str:
    if not _MAY_BE_MADE_UP.search(text):  # most texts, and literals cost more than all other rules
        return ""
    before = Text(raw)
    for found in Text(text).literals:
        if any(made_up(found.text) for made_up in _MADE_UP.get(found.kind, ())) and not before.has(found):
            return f"{INVENTED}: {found.kind}"
    return ""


def _is_name(quoted: str) -> bool:
    """Whether all words in quotes that count are capitalised."""
    words = [word for word in re.findall(r"[^\W\d_]+", quoted) if word.lower() not in FUNCTION_WORDS]
    return bool(words) and all(word[0].isupper() for word in words)


def _answers_behind(raw: str, text: str) -> str:
    return ANSWER if opens_as_an_answer(text) else ""


_MADE_UP: Final[dict[str, tuple[Callable[[str], object], ...]]] = {
    "url": (bool,),
    "number": (_LONG_NUMBER.search,),
    "placeholder": (lambda text: not text.startswith("["),),
    "quoted text": (_is_name,),
}
"""What a complement must not have of its own; small counts, code words and [gaps] it may."""

_MAY_BE_MADE_UP: Final = re.compile(r"""[^\x00-\x7f]|[\d"`{}<>$%/@]|\w\.\w|(?<!\w)'""")
"""What stands in each of them."""

Rule = Callable[[str, str], str]
_REWRITE: Final[tuple[Rule, ...]] = (_literals_changed, _subject_lost, _answers)
_COMPLEMENT: Final[tuple[Rule, ...]] = (_said_twice, _repeated, _unfinished, _invented, _answers_behind)
