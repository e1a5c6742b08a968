"""Numbers of a text, with times, dates, versions and units: "3.5 kg", "10:30 am", "v2.1", "GPT-4", "three days"."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

_RUN: Final = re.compile(r"[\dA-Za-zÀ-ɏͰ-ӿ_.,:/%°$€£¥₹#+¹²³½¼¾⅓⅔–−-]++")
_DIGIT: Final = re.compile(r"[\d½¼¾⅓⅔¹²³]")
_PART: Final = re.compile(r"[^-/.,:_]+")
_SPLIT: Final = re.compile(r"([+−-]?\d[\d.,]*+)-?([A-Za-z°µ][A-Za-z]*+)")
"""A number with its unit glued to it: 10km, 3-day."""
_LIST_MARKER: Final = re.compile(r"^[ \t>]*(\d{1,3})[.)](?=\s)", re.MULTILINE)
_UNIT: Final = re.compile(r"[\s-]?([A-Za-z°µ%][A-Za-z.]*+)")

_UNIT_WORDS = """
kg g mg lb lbs oz km m cm mm mi ft in inch inches l ml cl dl gal °c °f c f % percent s sec secs second seconds min
mins minute minutes h hr hrs hour hours day days night nights week weeks month months year years yr yrs decade
decades am pm a.m p.m kb mb gb tb khz mhz ghz hz w kw kwh v mv ma kcal cal usd eur gbp dollar dollars euro euros
pound pounds cent cents meter meters metre metres kilometer kilometers kilometre kilometres mile miles foot feet
liter liters litre gram grams k million billion thousand
"""
_UNITS: Final = frozenset(_UNIT_WORDS.split())
_COUNTS = """
two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen twenty
"""
_WORDS: Final = {word: str(value) for value, word in enumerate(_COUNTS.split(), start=2)} | {
    "thirty": "30",
    "forty": "40",
    "fifty": "50",
    "sixty": "60",
    "seventy": "70",
    "eighty": "80",
    "ninety": "90",
    "hundred": "100",
    "thousand": "1000",
    "million": "1000000",
    "billion": "1000000000",
    "dozen": "12",
    "twice": "twice",
    "half": "half",
}
_DATE_WORDS = """
monday tuesday wednesday thursday friday saturday sunday january february april june july august september october
november december today tomorrow tonight yesterday
"""
_DATES: Final = frozenset(_DATE_WORDS.split())
SMALL: Final = 12
"""The largest count in words that a text may have of its own: "give three examples"."""


@dataclass(frozen=True, slots=True)
class Amount:
    """A number of a text.

    Attributes:
        value: as it is written, or the digits of a number word.
        unit: without its plural, "" where there is none.
        text: as it is written, with its unit.
        start: where in the text.
        in_words: whether it is a number word.
    """

    value: str
    unit: str
    text: str
    start: int
    in_words: bool = False

    @property
    def is_small_count(self) -> bool:
        """Whether a count in words, up to twelve, as every text may have."""
        return self.in_words and (not self.value.isdigit() or int(self.value) <= SMALL)


class Amounts:
    """Numbers to look others up in."""

    def __init__(self, found: Iterable[Amount]) -> None:
        self._pairs = {(amount.value, amount.unit) for amount in found}
        self._values = {value for value, _ in self._pairs}

    def __contains__(self, amount: Amount) -> bool:
        """Whether the same number is there, of the same unit where both have one."""
        pairs = {(amount.value, amount.unit), (amount.value, "")}
        return amount.value in self._values if not amount.unit else not pairs.isdisjoint(self._pairs)


def amounts(text: str) -> Iterator[Amount]:
    """All numbers of a text in their order; the numbers that count the items of a list are none.

    >>> [(amount.value, amount.unit) for amount in amounts("3-day trip, 10km, at 9:30 pm; v2.1 costs $5. Two weeks")]
    [('3', 'day'), ('10', 'km'), ('9:30', 'pm'), ('v2.1', ''), ('$5', ''), ('2', 'week')]
    """
    markers = _list_markers(text)
    for match in _RUN.finditer(text):
        start = match.start()
        if start in markers:
            continue
        run = match.group().rstrip(".,:/-–−_#$")
        lead = len(run) - len(run.lstrip(".,:/_–"))
        run, start = run[lead:], start + lead
        if _DIGIT.search(run):
            yield _amount(run, start, text)
        else:
            yield from _in_words(run, start, text)


def _amount(run: str, start: int, text: str) -> Amount:
    glued = _SPLIT.fullmatch(run)
    if glued and glued.group(2).lower() in _UNITS:
        return Amount(glued.group(1), _unit(glued.group(2)), run, start)
    if run.endswith("%"):
        return Amount(run[:-1], "%", run, start)
    return _with_unit(run, run, start, text)


def _with_unit(value: str, written: str, start: int, text: str, in_words: bool = False) -> Amount:
    match = _UNIT.match(text, start + len(written))
    if not match or match.group(1).lower().rstrip(".") not in _UNITS:
        return Amount(value, "", written, start, in_words)
    unit = match.group().rstrip(".")
    return Amount(value, _unit(match.group(1)), written + unit, start, in_words)


def _in_words(run: str, start: int, text: str) -> Iterator[Amount]:
    for part in _PART.finditer(run):
        word, at = part.group(), start + part.start()
        lower = word.lower()
        if lower in _WORDS:
            yield _with_unit(_WORDS[lower], word, at, text, in_words=True)
        elif lower in _DATES or (lower in ("march", "may") and word[0].isupper() and _beside_a_digit(text, at, at + 5)):
            yield Amount(lower, "", word, at)


def _beside_a_digit(text: str, start: int, end: int) -> bool:
    return any(map(str.isdigit, text[max(start - 4, 0) : start] + text[end : end + 4]))


def _unit(written: str) -> str:
    unit = written.lower().replace(".", "")
    return {"%": "%", "percent": "%"}.get(unit, unit[:-1] if len(unit) > 2 and unit.endswith("s") else unit)


def _list_markers(text: str) -> frozenset[int]:
    """Where the numbers 1, 2, 3 before the items of a list stand."""
    found = [(match.start(1), int(match.group(1))) for match in _LIST_MARKER.finditer(text)]
    counted = [
        (start, number)
        for (start, number), expected in zip(found, range(1, len(found) + 1), strict=True)
        if number == expected
    ]
    return frozenset(start for start, _ in counted) if len(counted) > 1 else frozenset()
