"""What a prompt is about, and what it does not want: the words that a rewrite must still have.

Plain comparison of words, in any script: names, short words ("AI", "R", "tax") and most of the others have to be there,
words by their first letters, so that "plan" and "planning" are one; scripts without spaces by pairs of characters.
"""

import itertools
import math
import re
from typing import Final

from neuro_latent_core.guard import _words
from neuro_latent_core.guard.language import UNSPACED, language, scripts

_WORD: Final = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*+")
_SENTENCE_END: Final = frozenset(["", *'.!?:\n"“(*-#>'])
STEM_LETTERS: Final = 4
"""Two words that begin with the same letters count as one: plan and planning, summarize and summary."""
_SHORT: Final = 3
_LIKE_WORDS: Final = frozenset({"Go", "IT", "US"})
LEAST_SHARE: Final = 0.5
ENOUGH: Final = 2
"""A text keeps half of the prompt's longer words, or two; of two words or fewer it keeps all."""
LEAST_PAIRS: Final = 1 / 3
_LONG_PROMPT: Final = 200
"""Words. A rewrite of half as many has left out what was pasted."""

FUNCTION_WORDS: Final = frozenset(_words.FUNCTION.split())
"""English words that say nothing of what a prompt is about."""
_NEGATIONS = """
not no never without none nobody nothing neither nor cannot cant dont doesnt didnt isnt arent wasnt wont shouldnt
wouldnt couldnt except avoid exclude excluding avoiding nicht kein keine keinen keiner ohne nie pas sans jamais sin
nunca jamás não sem non senza mai niet geen zonder bez nigdy ne inte utan ikke uden uten nu fără ei ilman değil yok
không đừng tidak jangan tanpa bukan не нет без никогда ні немає नहीं बिना لا ليس بدون لم غير לא בלי אין 안 없이 말고
"""
_NOT: Final = frozenset(_NEGATIONS.split())
_NOT_UNSPACED: Final = re.compile("不|没|沒|无|無|別|别|ない|なし|ません|ไม่|อย่า")
_AS_GOOD: Final = frozenset(
    {"omit", "omits", "omitting", "skip", "unable", "fail", "fails", "failing", "prevent", "stop", "stops", "free"}
)
"""Words that a text may have in place of "not"."""
_CORRECTING: Final = frozenset({"wait", "sorry", "make", "i", "rather", "actually", "scratch", "or", "um", "uh", "er"})
"""What follows a "no" that negates nothing: "no wait", "yes or no or maybe"."""
_SCOPE: Final = 6
"""Words behind a negation that it may be about."""


def lost_subject(raw: str, enhanced: str) -> bool:
    """Whether a text has lost what the raw prompt is about: a name, a short word, or too many of the others.

    >>> lost_subject("plan a trip to Rome", "Write a program that counts the lines of a file.")
    True
    >>> lost_subject("plan a trip to Rome", "Act as a travel guide and plan a trip of three days in Rome.")
    False
    """
    there = _words_of(enhanced)
    stems = {_stem(word) for word in there}
    if any(not _is_there(name, there) for name in _must_stay(raw)) or _written(raw) - _written(enhanced):
        return True
    longer = {_stem(word) for word in _content(raw) if len(word) > _SHORT and not _is_unspaced(word)}
    least = len(longer) if len(longer) <= ENOUGH else min(math.ceil(LEAST_SHARE * len(longer)), ENOUGH)
    if len(longer & stems) < least:
        return True
    pairs = _pairs(raw)
    if len(pairs & _pairs(enhanced)) < LEAST_PAIRS * len(pairs):
        return True
    words = len(_WORD.findall(raw))
    return words >= _LONG_PROMPT and len(_WORD.findall(enhanced)) < words / 2


def lost_negation(raw: str, enhanced: str) -> bool:
    """Whether something that the raw prompt negates is not negated any more.

    >>> lost_negation("recipes without nuts", "Give me recipes with nuts.")
    True
    >>> lost_negation("recipes without nuts", "Give me recipes that don't have any nuts in them.")
    False
    """
    if _NOT_UNSPACED.search(raw) and not _NOT_UNSPACED.search(enhanced):
        return True
    there = _negated(enhanced, _NOT | _AS_GOOD)
    return any(not there or (scope and not any(scope & other for other in there)) for scope in _negated(raw, _NOT))


def _negated(text: str, negations: frozenset[str]) -> list[set[str]]:
    """For each negation, the stems of the words that it may be about."""
    words = _words_of(text)
    found = []
    for at, word in enumerate(words):
        if word == "no" and words[at + 1 : at + 2] and words[at + 1] in _CORRECTING:
            continue
        if word in negations or word.endswith("n't"):
            near = words[at - 1 : at] if word == "free" else words[at + 1 : at + 1 + _SCOPE]
            found.append({_stem(other) for other in near if other not in FUNCTION_WORDS and other not in _NOT})
    return found


def _must_stay(raw: str) -> set[str]:
    """Names and short words, in lower case."""
    short = {word for word in _content(raw) if len(word) <= _SHORT and not _is_unspaced(word)}
    matches = list(_WORD.finditer(raw))
    capital = [match for match in matches if match.group()[0].isupper()]
    if 2 * len(capital) > len(matches):  # a title, or all in capitals
        return short
    for match in capital:
        word, before = match.group(), raw[max(match.start() - 4, 0) : match.start()].rstrip(" \t")[-1:]
        is_acronym = word.isupper() and len(word) > 1
        is_inside = word not in ("I", "A") and before not in _SENTENCE_END
        if (is_acronym or is_inside) and word.lower() not in FUNCTION_WORDS and not word.startswith(("I'", "I’")):
            short.add(word.lower())
    return short


def _written(text: str) -> frozenset[str]:
    """Names that only their capitals tell from common words."""
    return frozenset() if text.isupper() else _LIKE_WORDS.intersection(_WORD.findall(text))


def _content(text: str) -> list[str]:
    """Words that say what a text is about."""
    code = language(text)
    common = frozenset(_words.OTHERS.get(code, "").split()) if code not in ("", "en") else FUNCTION_WORDS
    return [
        word
        for word in _words_of(text)
        if word not in common and word not in _NOT and (len(word) > 1 or not word.isascii() or word in "rc")
    ]


def _words_of(text: str) -> list[str]:
    return [word.replace("’", "'").removesuffix("'s") for word in _WORD.findall(text.lower())]


def _is_there(name: str, words: list[str]) -> bool:
    name = name.removesuffix("'s")
    return name in words or f"{name}s" in words or name.removesuffix("s") in words


def _stem(word: str) -> str:
    return word[:STEM_LETTERS]


def _is_unspaced(word: str) -> bool:
    return not UNSPACED.isdisjoint(scripts(word)) or _has_particles(word)


def _has_particles(word: str) -> bool:
    """Scripts whose words carry articles and particles: compared by pairs of characters as well."""
    return not {"hangul", "arabic", "hebrew", "devanagari", "indic"}.isdisjoint(scripts(word))


def _pairs(text: str) -> set[str]:
    """Neighbouring characters of the words that are compared so."""
    words = (word for word in _WORD.findall(text) if not word.isascii() and _is_unspaced(word))
    return {pair for word in words for pair in map("".join, itertools.pairwise(word))}
