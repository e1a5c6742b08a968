"""Drafts that are copied from the prompt, the text so far and earlier texts, and how many of them are worth checking.

A draft costs a wider step; where the model would have written the same tokens anyway, several are had for the price of
one. The tokens are those of greedy decoding, whatever is drafted: a step's own choice decides.
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

NGRAMS = (3, 2, 1)
"""Lengths of the last words that are looked up, longest first."""

SEPARATOR = -1
"""Between prompt and text; not a token."""


class History:
    """What was written lately, over all requests: an adapter writes many of its sentences again.

    The idea of SuffixDecoding (Oliaro et al. 2024), with one length of n-grams in place of a suffix tree. Two tables,
    of which the older is thrown away when the newer is full, bound the memory.

    Args:
        most_tokens: of one table.
    """

    NGRAM = max(NGRAMS)

    def __init__(self, most_tokens: int = 1 << 16) -> None:
        self._most_tokens = most_tokens
        self._new, self._old = _Table(), _Table()

    def add(self, tokens: Sequence[int]) -> None:
        """A text is finished; its end token counts."""
        if len(self._new.tokens) + len(tokens) > self._most_tokens:
            self._new, self._old = _Table(), self._new
        self._new.add(tokens)

    def draft(self, last: Sequence[int], most: int) -> list[int]:
        """Up to ``most`` tokens that followed the last tokens of a text when they were written last."""
        key = tuple(last[-self.NGRAM :])
        return self._new.draft(key, most) or self._old.draft(key, most)


class _Table:
    def __init__(self) -> None:
        self.tokens: list[int] = []
        self._following: dict[tuple[int, ...], int] = {}

    def add(self, tokens: Sequence[int]) -> None:
        start = len(self.tokens)
        for end in range(History.NGRAM, len(tokens)):
            self._following[tuple(tokens[end - History.NGRAM : end])] = start + end
        self.tokens += [*tokens, SEPARATOR]

    def draft(self, key: tuple[int, ...], most: int) -> list[int]:
        at = self._following.get(key)
        found = [] if at is None else self.tokens[at : at + most]
        return found[: found.index(SEPARATOR)] if SEPARATOR in found else found


class Drafter:
    """Looks up a text's last tokens in its prompt, itself and earlier texts; proposes what followed them there."""

    def __init__(self, prompt_ids: Sequence[int], start_id: int, history: History | None = None) -> None:
        self._history = history
        self._seen: dict[tuple[int, ...], int] = {}
        self._context: list[int] = []
        # The prompt, too, begins with the start token, so the first draft is how the prompt begins.
        for token in (start_id, *prompt_ids, SEPARATOR, start_id):
            self.append(token)
        self._begin = len(self._context)

    def append(self, token: int) -> None:
        """The text goes on with ``token``."""
        # An n-gram is entered when its successor is known, so that the last tokens do not find themselves.
        end = len(self._context)
        for n in NGRAMS:
            if end >= n:
                self._seen[tuple(self._context[end - n : end])] = end
        self._context.append(token)

    def remember(self) -> None:
        """The text is finished: later ones may go on as it did."""
        if self._history is not None:
            self._history.add(self._context[self._begin :])

    def draft(self, most: int) -> list[int]:
        """Up to ``most`` tokens that may come next; the longest match counts, of two the one in this text."""
        for n in NGRAMS:
            at = self._seen.get(tuple(self._context[-n:]))
            if at is not None:
                # What followed may itself run up to the end of the text: then it repeats, and so does the draft.
                period = self._context[at:]
                found = [period[i % len(period)] for i in range(most)]
                return found[: found.index(SEPARATOR)] if SEPARATOR in found else found
            in_text = len(self._context) >= self._begin + n
            if n == History.NGRAM and in_text and self._history and (found := self._history.draft(self._context, most)):
                return found
        return []


class Acceptance:
    """How often the drafts of one text were right lately."""

    MEMORY = 0.9
    RECOVERY = 0.99
    """Without drafts the estimate slowly returns to one half, so that a text that begins to copy is noticed."""

    def __init__(self) -> None:
        self._right, self._checked = 0.0, 0.0

    @property
    def probability(self) -> float:
        """That the next token of a draft is right, given that those before it are."""
        return (self._right + 1) / (self._checked + 2)

    def observe(self, drafted: int, accepted: int) -> None:
        """Of ``drafted`` tokens the first ``accepted`` were right."""
        memory = self.MEMORY if drafted else self.RECOVERY
        self._right = self._right * memory + accepted
        self._checked = self._checked * memory + min(drafted, accepted + 1)


@dataclass(frozen=True)
class Offer:
    """A row's draft: how long, and the chance of each of its tokens."""

    length: int
    probability: float

    def expected_tokens(self, width: int) -> float:
        """Tokens that a step of this width writes, on average: 1 + p + p² + …"""
        p, count = self.probability, min(self.length, width - 1)
        return 1.0 + sum(p**i for i in range(1, count + 1))


class StepCost:
    """Seconds that a step takes by the number of tokens fed, over all rows.

    Only the ratios matter. They are measured once, before the first request, and not learned while decoding: whatever
    else slows the machine down meanwhile would make the widths that happen to run then look bad for good.
    """

    ASSUMED_SLOPE = 0.3
    """Where nothing was measured, each token more costs this share of a step of one."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def measured(self, tokens: int, seconds: float) -> None:
        """A step of ``tokens`` tokens has taken ``seconds``; the shortest time of each size counts."""
        self._seconds[tokens] = min(seconds, self._seconds.get(tokens, seconds))

    def of(self, tokens: int) -> float:
        """Seconds for a step of ``tokens`` tokens, between and beyond those measured on straight lines."""
        if len(self._seconds) < 2:
            return 1.0 + self.ASSUMED_SLOPE * (tokens - 1)
        sizes = sorted(self._seconds)
        right = min(max(bisect.bisect_left(sizes, tokens), 1), len(sizes) - 1)
        low, high = sizes[right - 1], sizes[right]
        slope = (self._seconds[high] - self._seconds[low]) / (high - low)
        return max(self._seconds[low] + slope * (tokens - low), 1e-9)


def best_width(offers: Sequence[Offer], rows: int, most: int, cost: StepCost) -> int:
    """The number of tokens a row to feed in the next step, 1 to ``most``: the most text a second.

    Args:
        offers: of the rows that have a draft.
        rows: all rows; the others write one token at any width.
        most: the widest step.
        cost: of a step by its tokens.
    """
    if not offers:
        return 1
    others = rows - len(offers)

    def tokens_a_second(width: int) -> float:
        return (others + sum(offer.expected_tokens(width) for offer in offers)) / cost.of(rows * width)

    widest = min(most, 1 + max(offer.length for offer in offers))
    return max(range(1, widest + 1), key=tokens_a_second)
