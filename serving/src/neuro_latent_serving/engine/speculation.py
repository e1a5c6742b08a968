"""Draft proposals: tokens that may come next, how likely they are, and how many are worth verifying.

A draft costs a wider step; where the model would have chosen the same tokens, one step gives several. The tokens are
those of greedy decoding, whatever is drafted: a step's own choice decides.
"""

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from operator import mul

SEPARATOR = -1
"""Between prompt and text; not a token."""


@dataclass(frozen=True)
class Draft:
    """Tokens that may come next.

    Attributes:
        tokens: the draft.
        chances: of each of its tokens to be right, given that those before it are.
    """

    tokens: Sequence[int] = ()
    chances: Sequence[float] = ()

    def expected_tokens(self, width: int) -> float:
        """Tokens that a step of this width writes, on average: 1 + p1 + p1 p2 + …"""
        reached: Iterable[float] = accumulate(self.chances[: width - 1], mul)
        return 1.0 + sum(reached)


class History:
    """An n-gram table: which token followed which four in recent sequences of all requests.

    An adapter writes many of its sentences again. Two tables, of which the older is thrown away when the newer is
    full, bound the memory.

    Args:
        most_tokens: of one table.
    """

    NGRAM = 4
    LEAST_CHANCE = 0.05
    """A draft ends before the token that it would reach with less."""

    def __init__(self, most_tokens: int = 1 << 16) -> None:
        self._most_tokens = most_tokens
        self._new, self._old = _FollowerTable(), _FollowerTable()

    def add(self, tokens: Sequence[int], times: int = 1) -> None:
        """Count a sequence ``times`` times; its end token counts."""
        if self._new.tokens + len(tokens) > self._most_tokens:
            self._new, self._old = _FollowerTable(), self._new
        self._new.add(tokens, times)

    def draft(self, text: Sequence[int], most: int) -> Draft:
        """Up to ``most`` tokens that followed the end of ``text``, all that is written so far, most often."""
        key = reduce(_next, text[-self.NGRAM :], 0)
        tokens: list[int] = []
        chances: list[float] = []
        reached = 1.0
        while len(tokens) < most and (found := self._new.following(key) or self._old.following(key)):
            token, chance = found
            reached *= chance
            if reached < self.LEAST_CHANCE:
                break
            tokens.append(token)
            chances.append(chance)
            key = _next(key, token)
        return Draft(tokens, chances)


BITS = 20
"""Of a token in a key; 0 stands for no token, before the text."""


def _next(key: int, token: int) -> int:
    return (key << BITS | (token + 1)) & ((1 << BITS * History.NGRAM) - 1)


class _FollowerTable:
    """The likeliest follower of each n-gram, found by majority vote (Boyer and Moore 1981) in place of counting all."""

    UNSURE = 0.5
    """Counts against every follower, so that what was seen once is not certain."""

    def __init__(self) -> None:
        self.tokens = 0
        self._votes: dict[int, tuple[int, int, int, int]] = {}  # n-gram: follower, its lead and votes, all votes

    def add(self, tokens: Sequence[int], times: int) -> None:
        self.tokens += len(tokens)
        key = 0
        for token in tokens:
            follower, lead, votes, all_votes = self._votes.get(key, (token, 0, 0, 0))
            if token == follower:
                lead, votes = lead + times, votes + times
            elif lead >= times:
                lead -= times
            else:
                follower, lead, votes = token, times - lead, times
            self._votes[key] = follower, lead, votes, all_votes + times
            key = _next(key, token)

    def following(self, key: int) -> tuple[int, float] | None:
        """The follower of an n-gram and its chance; None where none was seen."""
        if key not in self._votes:
            return None
        follower, _, votes, all_votes = self._votes[key]
        return follower, votes / (all_votes + self.UNSURE)


class Acceptance:
    """How often the recent drafts of one sequence were accepted."""

    MEMORY = 0.9
    RECOVERY = 0.99
    """Without drafts the estimate slowly returns to one half, so that a sequence that begins to copy is noticed."""

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


class Copying:
    """Prompt lookup: finds a sequence's last tokens in its prompt and itself, and proposes what followed there.

    Saxena 2023; for sequences that repeat their prompt.
    """

    NGRAMS = (3, 2, 1)
    """Lengths of the last words that are looked up, longest first."""

    def __init__(self, prompt_ids: Sequence[int], start_id: int) -> None:
        self._seen: dict[tuple[int, ...], int] = {}
        self._context: list[int] = []
        self._acceptance = Acceptance()
        # The prompt, too, begins with the start token, so the first draft is how the prompt begins.
        for token in (start_id, *prompt_ids, SEPARATOR, start_id):
            self.append(token)

    def append(self, token: int) -> None:
        """Append ``token``."""
        # An n-gram is entered when its successor is known, so that the last tokens do not find themselves.
        end = len(self._context)
        for n in self.NGRAMS:
            if end >= n:
                self._seen[tuple(self._context[end - n : end])] = end
        self._context.append(token)

    def observe(self, drafted: int, accepted: int) -> None:
        """Of a draft of ``drafted`` tokens the first ``accepted`` were right."""
        self._acceptance.observe(drafted, accepted)

    def draft(self, most: int) -> Draft:
        """Up to ``most`` tokens that may come next; the longest match counts."""
        for n in self.NGRAMS:
            at = self._seen.get(tuple(self._context[-n:]))
            if at is not None:
                # What followed may itself run up to the end of the text: then it repeats, and so does the draft.
                period = self._context[at:]
                found = [period[i % len(period)] for i in range(most)]
                found = found[: found.index(SEPARATOR)] if SEPARATOR in found else found
                return Draft(found, [self._acceptance.probability] * len(found))
        return Draft()


class Drafter:
    """Draft proposals for one sequence: copied from its prompt, or from earlier sequences.

    Args:
        history: of all sequences.
        copying: None where the sequence is not expected to repeat its prompt.
    """

    def __init__(self, history: History, copying: Copying | None = None) -> None:
        self._history, self._copying = history, copying
        self._text: list[int] = []
        self._copied = False

    def draft(self, most: int) -> Draft:
        """Up to ``most`` tokens that may come next: of two drafts the one of which more is expected to be right."""
        draft = self._history.draft(self._text, most)
        copy = self._copying.draft(most) if self._copying else Draft()
        self._copied = copy.expected_tokens(most + 1) > draft.expected_tokens(most + 1)
        return copy if self._copied else draft

    def go_on(self, tokens: Sequence[int], drafted: int) -> None:
        """Append ``tokens``, all but the last from the draft, of which ``drafted`` tokens were checked."""
        self._text += tokens
        if self._copying:
            copied = drafted if self._copied else 0
            self._copying.observe(copied, len(tokens) - 1 if copied else 0)
            for token in tokens:
                self._copying.append(token)

    def remember(self) -> None:
        """The sequence is finished: drafts of later ones may copy it."""
        self._history.add(self._text)


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


def best_width(drafts: Sequence[Draft], rows: int, most: int, cost: StepCost) -> int:
    """The number of tokens a row to feed in the next step, 1 to ``most``: the most text a second.

    Args:
        drafts: of the rows that have one.
        rows: all rows; the others write one token at any width.
        most: the widest step.
        cost: of a step by its tokens.
    """
    if not drafts:
        return 1
    others = rows - len(drafts)

    def tokens_a_second(width: int) -> float:
        return (others + sum(draft.expected_tokens(width) for draft in drafts)) / cost.of(rows * width)

    widest = min(most, 1 + max(len(draft.tokens) for draft in drafts))
    return max(range(1, widest + 1), key=tokens_a_second)
