"""A request in its slots: which tokens its rows feed next, and what it makes of a step's result.

Two ways of writing: texts of their own (greedy, with drafts, or sampled), and the beams of one search.
"""

from collections.abc import Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Protocol

from neuro_latent_core.limits import CANDIDATES
from neuro_latent_serving.engine.beams import BeamSearch
from neuro_latent_serving.engine.contract import Cache, StepResult
from neuro_latent_serving.engine.request import Request
from neuro_latent_serving.engine.sampling import Sampler
from neuro_latent_serving.engine.sequence import DEADLINE, LENGTH, STOP, Event, Sequence
from neuro_latent_serving.engine.speculation import Draft, Drafter


@dataclass
class StepCounts:
    """What a step did, for the metrics."""

    tokens: int = 0
    drafted: int = 0
    accepted: int = 0


class Writing(Protocol):
    """A request that holds rows of the cache."""

    request: Request
    needs_candidates: bool
    needs_logprobs: bool

    @property
    def rows(self) -> list[int]:
        """Its rows of the cache."""

    def drafts(self, most: int) -> Iterator[Draft]:
        """The drafts of its rows, at most ``most`` tokens long; before every step."""

    def feeds(self, width: int) -> list[list[int]]:
        """For each of its rows the tokens to feed, one to ``width``."""

    def take(self, result: StepResult, cache: Cache, counts: StepCounts) -> tuple[list[Event], list[int]]:
        """Go on with a step's result; returns what there is to tell, and the rows that are done."""

    def stop(self) -> list[Event]:
        """End what is unfinished, because time is up."""

    def moved(self, rows: dict[int, int]) -> None:
        """Rows of the cache have new numbers: old -> new."""


@dataclass(eq=False)
class _Text:
    """One text of its own, with its row."""

    sequence: Sequence
    row: int
    last_token: int
    sampler: Sampler | None
    drafter: Drafter | None
    draft: Items[int] = ()


class Texts:
    """Greedy or sampled texts; each is written without regard to the others."""

    def __init__(
        self,
        request: Request,
        sequences: Items[Sequence],
        rows: Items[int],
        start_id: int,
        samplers: Items[Sampler | None],
        drafter: Drafter | None,
    ) -> None:
        self.request = request
        self._texts = [
            _Text(sequence, row, start_id, sampler, drafter)
            for sequence, row, sampler in zip(sequences, rows, samplers, strict=True)
        ]
        drawn = [sampler for sampler in samplers if sampler is not None]
        self.needs_candidates = any(not sampler.needs_all for sampler in drawn)
        self.needs_logprobs = any(sampler.needs_all for sampler in drawn)

    @property
    def rows(self) -> list[int]:
        """Its rows of the cache."""
        return [text.row for text in self._texts]

    def drafts(self, most: int) -> Iterator[Draft]:
        """A draft for each greedy text that finds one."""
        for text in self._texts:
            text.draft = ()
            if text.drafter is not None:
                left = text.sequence.left - 1  # the step writes one token more than it accepts of the draft
                draft = text.drafter.draft(max(min(most, left), 0))
                text.draft = draft.tokens
                if text.draft:
                    yield draft

    def feeds(self, width: int) -> list[list[int]]:
        """Last token and draft of each row."""
        for text in self._texts:
            text.draft = text.draft[: width - 1]
        return [[text.last_token, *text.draft] for text in self._texts]

    def take(self, result: StepResult, cache: Cache, counts: StepCounts) -> tuple[list[Event], list[int]]:
        """Accept the drafts that the model agrees with, and its own next token."""
        events: list[Event] = []
        for text in self._texts:
            tokens, logprobs = self._chosen(text, result)
            counts.tokens += len(tokens)
            counts.drafted += len(text.draft)
            counts.accepted += len(tokens) - 1
            cache.lengths_B[text.row] += len(tokens)
            text.last_token = tokens[-1]
            if text.drafter is not None:
                text.drafter.go_on(tokens, len(text.draft))
            event = text.sequence.accept(tokens, logprobs)
            if event is not None:
                events.append(event)
        ended = [text for text in self._texts if text.sequence.finished]
        for text in ended:
            if text.drafter is not None:
                text.drafter.remember()
        done = [text.row for text in ended]
        self._texts = [text for text in self._texts if not text.sequence.finished]
        return events, done

    def _chosen(self, text: _Text, result: StepResult) -> tuple[list[int], list[float]]:
        if text.sampler is None:
            best = result.next_token_BW[text.row].tolist()
            right = 0
            while right < len(text.draft) and text.draft[right] == best[right]:
                right += 1
            return best[: right + 1], result.next_logprob_BW[text.row, : right + 1].tolist()
        if text.sampler.needs_all:
            assert result.logprobs_BWV is not None
            token, logprob = text.sampler.draw(result.logprobs_BWV[text.row, 0])
        else:
            candidates = result.candidate_tokens_BWC[text.row, 0], result.candidate_logprobs_BWC[text.row, 0]
            token, logprob = text.sampler.draw_from(*candidates)
        return [token], [logprob]

    def stop(self) -> list[Event]:
        """End every text as it is."""
        return [text.sequence.finish(DEADLINE) for text in self._texts]

    def moved(self, rows: dict[int, int]) -> None:
        """Rows of the cache have new numbers: old -> new."""
        for text in self._texts:
            text.row = rows.get(text.row, text.row)


class Beams:
    """The beams of one search; nothing is told before it ends."""

    needs_candidates, needs_logprobs = True, False

    def __init__(
        self, request: Request, sequences: Items[Sequence], rows: Items[int], start_id: int, search: BeamSearch
    ) -> None:
        self.request = request
        self.rows = list(rows)
        self._sequences, self._search = sequences, search
        self._last_tokens = [start_id] * len(self.rows)

    def drafts(self, most: int) -> Iterator[Draft]:
        """Beams are not drafted for."""
        return iter(())

    def feeds(self, width: int) -> list[list[int]]:
        """The last token of each beam."""
        return [[token] for token in self._last_tokens]

    def take(self, result: StepResult, cache: Cache, counts: StepCounts) -> tuple[list[Event], list[int]]:
        """Let the search choose which beams go on with what."""
        tokens_KC = result.candidate_tokens_BWC[self.rows, 0]
        parents = self._search.advance(tokens_KC, result.candidate_logprobs_BWC[self.rows, 0])
        cache.lengths_B[self.rows] += 1
        counts.tokens += len(self.rows)
        if self._search.finished:
            done, self.rows = self.rows, []
            return self._tell(), done
        cache.reorder(self.rows, [self.rows[parent] for parent in parents])
        self._last_tokens = [int(token) for token in self._search.last_tokens_K]
        return [], []

    def stop(self) -> list[Event]:
        """The best texts so far."""
        return self._tell(DEADLINE)

    def _tell(self, reason: str = "") -> list[Event]:
        events, found = [], self._search.hypotheses()
        for sequence, hypothesis in zip(self._sequences, found, strict=False):
            sequence.replace(hypothesis.tokens, hypothesis.sum_logprob, hypothesis.chosen)
            own = STOP if hypothesis.finished else LENGTH
            events.append(sequence.finish(own if hypothesis.finished else reason or own))
        # Fewer than asked for only at a deadline before the first step, and with a vocabulary of a few tokens.
        return events + [sequence.finish(reason or LENGTH) for sequence in self._sequences[len(found) :]]

    def moved(self, rows: dict[int, int]) -> None:
        """Rows of the cache have new numbers: old -> new."""
        self.rows = [rows.get(row, row) for row in self.rows]


def start_writing(
    request: Request,
    sequences: Items[Sequence],
    rows: Items[int],
    *,
    start_id: int,
    eos_id: int,
    seed: int,
    drafter: Drafter | None = None,
) -> Writing:
    """Put a request into its rows.

    Args:
        request: what to write.
        sequences: one for each text that it gets.
        rows: of the cache, as many as it takes.
        start_id: T5's first decoder input.
        eos_id: T5's end token.
        seed: of the sampling.
        drafter: for a greedy text; None drafts nothing.
    """
    options = request.options
    if options.num_beams > 1:
        search = BeamSearch(
            num_beams=options.num_beams,
            num_return_sequences=options.num_return_sequences,
            max_length=options.max_length,
            length_penalty=options.length_penalty,
            eos_id=eos_id,
        )
        return Beams(request, sequences, rows, start_id, search)
    if options.greedy:
        return Texts(request, sequences, rows, start_id, [None], drafter)
    samplers = [Sampler(options, seed, i, CANDIDATES) for i in range(len(sequences))]
    return Texts(request, sequences, rows, start_id, samplers, None)
