"""Which language a prompt is in, by rules: scripts first, then words that tell languages in Latin letters apart.

Small and sure rather than clever: a prompt of one or two words has hardly anything to go by, so whatever is not
clearly of another language counts as English.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import Final

from neuro_latent_core.guard import _words

_SCRIPTS: Final = (
    ("latin", "A-Za-zªºÀ-ÖØ-öø-ʯ\u1e00-\u1eff\u2c60-\u2c7f\ua722-\ua787\uff21-\uff5a"),
    ("cyrillic", "\u0400-\u052f\u1c80-\u1c8f"),
    ("greek", "\u0370-\u03ff\u1f00-\u1fff"),
    ("han", "\u2e80-\u2fdf\u3005\u3007\u3021-\u3029\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"),
    ("kana", "\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9f"),
    ("hangul", "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff"),
    ("arabic", "\u0620-\u064a\u066e-\u06ef\u06fa-\u06ff\u0750-\u077f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufefc"),
    ("hebrew", "\u05d0-\u05ea\ufb1d-\ufb4f"),
    ("devanagari", "\u0900-\u0965\u0970-\u097f"),
    ("thai", "\u0e01-\u0e3a\u0e40-\u0e4e"),
    ("armenian", "\u0530-\u058f"),
    ("georgian", "\u10a0-\u10ff\u1c90-\u1cbf"),
    (
        "indic",
        "\u0980-\u09e5\u09f0-\u0a65\u0a70-\u0ae5\u0af0-\u0b65\u0b70-\u0be5\u0bf0-\u0c65\u0c70-\u0ce5\u0cf0-\u0d65\u0d70-\u0de5\u0df0-\u0dff",
    ),
    ("southeast", "\u0e80-\u0ecf\u0edc-\u0fff\u1000-\u103f\u1050-\u108f\u1780-\u17df"),
    ("ethiopic", "\u1200-\u139f"),
)
_SCRIPT: Final = re.compile("|".join(f"(?P<{name}>[{characters}]+)" for name, characters in _SCRIPTS))

UNSPACED: Final = frozenset({"han", "kana", "thai", "southeast"})
"""Scripts without spaces between words."""
DENSE: Final = 2
"""A letter of any script but the Latin one counts as two: it says about as much."""

_WORD: Final = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*+")
_SET_APART: Final = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]+`|\"[^\"]+\"|“[^“”]+”|„[^„“”]+[“”]|«[^«»]+»|(?<!\S)\S*?(?:://|www\.|@)\S*|<[^<>\n]+>",
    re.DOTALL,
)
"""Code, quoted text and addresses: they may be in any language."""
_END_OF_SENTENCE: Final = re.compile(r"[.!?:;\n]+(?=\s|\Z)|\n")
_CODE: Final = re.compile(r"[{}\[\]()=<>_/\\|;$#]")

_LOANWORDS = """
appliqué attaché blasé café cafés canapé canapés cliché clichés communiqué consommé crème brûlée crêpe crêpes décor
déjà voilà façade fiancé fiancée jalapeño jalapeños maître matinée mêlée naïve naïveté née piñata piñatas pâté protégé
purée résumé resumé résumés rosé sauté sautéed señor soufflé soirée touché über vis-à-vis éclair éclairs exposé entrée
entrées débutante doppelgänger smörgåsbord gruyère pokémon beyoncé são paulo zürich münchen köln düsseldorf malmö
göteborg tromsø bodø curaçao québec montréal bogotá medellín cancún málaga córdoba perú méxico español jalapenõ açaí
feng shui mañana niño señorita fröhlich häagen dazs hermès nestlé citroën lancôme björk gödel schrödinger poincaré
erdős möbius kārlis ångström coöperate café's
"""
_ACCENTED_ENGLISH: Final = frozenset(_LOANWORDS.split())
_SURE: Final = 2
"""Words of another language, more than English ones, that settle it; one does in a text without any English word."""
_LEAST_WORDS: Final = 4
_LETTERS_THAT_TELL: Final = 3
_BEGINNING, _END = 4000, 1000


def scripts(text: str) -> Counter[str]:
    """How many letters of each script a text has.

    >>> dict(scripts("Привет, world"))
    {'cyrillic': 6, 'latin': 5}
    """
    if text.isascii():
        return +Counter(latin=sum(map(str.isalpha, text)))  # without a zero
    found: Counter[str] = Counter()
    for match in _SCRIPT.finditer(text):
        found[match.lastgroup or ""] += len(match.group())
    return found


def language(text: str) -> str:
    """The language of a text: an ISO 639-1 code, a script's name where only that is known, or "" when unsure.

    >>> language("Wie lerne ich Gitarre?"), language("Как дела"), language("How are you?"), language("vlookup")
    ('de', 'cyrillic', 'en', '')
    """
    if len(text) > _BEGINNING + _END:
        text = f"{text[:_BEGINNING]}\n{text[-_END:]}"
    own = _SET_APART.sub(" ", text)
    if not _WORD.search(own):
        own = text
    letters = scripts(own)
    latin = letters.pop("latin", 0)
    if letters.total() > 1 and letters.total() * DENSE > latin and not _begins_in_english(own):
        return "kana" if letters["kana"] else letters.most_common(1)[0][0]
    return _latin_language(own)


def is_english(text: str) -> bool:
    """Whether a prompt is English, or may be: what is not clearly of another language is.

    >>> is_english("sql joins"), is_english("katze frisst nicht mehr"), is_english("如何学吉他")
    (True, False, False)
    """
    return language(text) in ("en", "")


def languages(text: str) -> frozenset[str]:
    """All languages but English that have a word of a text in Latin letters in their lists."""
    return frozenset(_count(_words_of(text))[1])


def english_words(text: str) -> float:
    """The share of a text's words that are among the most common English ones; 1 in a text without words."""
    words = _words_of(text)
    return sum(word in _english() for word in words) / len(words) if words else 1.0


def _latin_language(text: str) -> str:
    words = _words_of(text)
    english, others, shared = _count(words)
    code, hits = max(others.items(), key=lambda item: (item[1], shared[item[0]]), default=("", 0))
    accented = _accented(text, with_names=hits > 0)
    marks = hits + accented
    if english == 0 and hits:
        marks += shared[code]
    margin = _SURE if english and (english >= _SURE or len(words) <= _LEAST_WORDS) else 1
    if marks < english + margin or (english and _begins_in_english(text)) or _is_framed_in_english(text):
        return "en" if english else ""
    if hits == 0:
        return "latin" if len(words) >= _LEAST_WORDS and (english == 0 or 2 * accented > len(words)) else ""
    least = _SURE + len(_CODE.findall(text))
    if marks >= least:
        return code
    if english == 0 and len(words) >= least + _SURE and any(map(_tells, words)):
        return code
    return ""


def _tells(word: str) -> bool:
    """Whether a word says something alone."""
    return len(word) >= _LETTERS_THAT_TELL and not _words.RARE.issuperset(_lists().get(word, ()))


def _accented(text: str, with_names: bool) -> int:
    """How many different words have accents, loanwords apart."""
    words = {word for word in _WORD.findall(text) if not word.isascii()}
    return sum(
        word.lower() not in _ACCENTED_ENGLISH and not word.endswith(("'s", "’s")) and (with_names or word[0].islower())
        for word in words
    )


def _is_framed_in_english(text: str) -> bool:
    """Whether the first or the last sentence of several is English: those ask, the others are what it is about."""
    sentences = [sentence for sentence in _END_OF_SENTENCE.split(text) if _WORD.search(sentence)]
    if len(sentences) < 2:
        return False
    for sentence in (sentences[0], sentences[-1]):
        english, others, _ = _count(_words_of(sentence))
        if english >= _SURE and english > max(others.values(), default=0):
            return True
    return False


def _begins_in_english(text: str) -> bool:
    first = _WORD.search(text)
    return first is not None and _plain(first.group().lower()) in _starts()


def _words_of(text: str) -> list[str]:
    return [word.replace("’", "'") for word in _WORD.findall(unicodedata.normalize("NFC", text).lower())]


def _count(words: Iterable[str]) -> tuple[int, Counter[str], Counter[str]]:
    """How many different words are English only, of each other language only, and of it and English."""
    english, others, shared = 0, Counter[str](), Counter[str]()
    for word in set(words):
        codes = _lists().get(word, ())
        if word not in _english():
            others.update(codes)
        elif codes:
            shared.update(codes)
        else:
            english += 1
    return english, others, shared


def _plain(word: str) -> str:
    """Without accents.

    >>> _plain("größte"), _plain("żółw"), _plain("Đà")
    ('grosste', 'zolw', 'Da')
    """
    letters = unicodedata.normalize("NFD", word.translate(_LETTERS))
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


_LETTERS: Final = str.maketrans({"ß": "ss", "ł": "l", "ø": "o", "đ": "d", "Đ": "D", "ı": "i", "æ": "ae", "œ": "oe"})


@cache
def _english() -> frozenset[str]:
    return frozenset(_words.ENGLISH.split()) | _starts()


@cache
def _starts() -> frozenset[str]:
    return frozenset(_words.STARTS.split())


@cache
def _lists() -> dict[str, tuple[str, ...]]:
    """Word -> the languages that have it, with its accents and without them."""
    found: dict[str, set[str]] = {}
    for code, words in _words.OTHERS.items():
        for word in words.split():
            for written in {word, _plain(word)} if len(word) > (3 if code == "vi" else 2) else {word}:
                if len(written) > 1 or not written.isascii():
                    found.setdefault(written, set()).add(code)
    return {word: tuple(codes) for word, codes in found.items()}
