"""A running request: which tokens its rows feed next, and what it makes of a step's result.

Two kinds: independent sequences (greedy, with drafts, or sampled), and the beams of one search.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from neuro_latent_core.limits import CANDIDATES
from neuro_latent_serving.engine.beams import BeamSearch
from neuro_latent_serving.engine.contract import StepResult
from neuro_latent_serving.engine.metrics import EngineMetrics
from neuro_latent_serving.engine.request import Request
from neuro_latent_serving.engine.rows import Rows
from neuro_latent_serving.engine.sampling import Sampler
from neuro_latent_serving.engine.sequence import DEADLINE, LENGTH, STOP, Event, OutputSequence
from neuro_latent_serving.engine.speculation import Draft, Drafter


@dataclass(eq=False)
class _Slot:
    """One sequence, with its row of the cache."""

    sequence: OutputSequence
    row: int
    last_token: int
    sampler: Sampler | None
    drafter: Drafter | None
    draft: Sequence[int] = ()


class SampledSequences:
    """Greedy or sampled sequences, independent of each other."""

    def __init__(
        self,
        request: Request,
        sequences: Sequence[OutputSequence],
        rows: Sequence[int],
        start_id: int,
        samplers: Sequence[Sampler | None],
        drafter: Drafter | None,
    ) -> None:
        self.request = request
        self._slots = [
            _Slot(sequence, row, start_id, sampler, drafter)
            for sequence, row, sampler in zip(sequences, rows, samplers, strict=True)
        ]
        drawn = [sampler for sampler in samplers if sampler is not None]
        self.needs_candidates = any(not sampler.needs_all for sampler in drawn)
        self.needs_logprobs = any(sampler.needs_all for sampler in drawn)

    @property
    def rows(self) -> list[int]:
        """Its rows of the cache."""
        return [slot.row for slot in self._slots]

    def drafts(self, most: int) -> Iterator[Draft]:
        """A draft for each greedy sequence that finds one, at most ``most`` tokens long; before every step."""
        for slot in self._slots:
            slot.draft = ()
            if slot.drafter is not None:
                left = slot.sequence.left - 1  # the step writes one token more than it accepts of the draft
                draft = slot.drafter.draft(max(min(most, left), 0))
                slot.draft = draft.tokens
                if slot.draft:
                    yield draft

    def feeds(self, width: int) -> list[list[int]]:
        """The tokens that each row feeds, one to ``width``: its last token and its draft."""
        for slot in self._slots:
            slot.draft = slot.draft[: width - 1]
        return [[slot.last_token, *slot.draft] for slot in self._slots]

    def take(self, result: StepResult, cache: Rows, metrics: EngineMetrics) -> tuple[list[Event], list[int]]:
        """Accept the drafts that the model agrees with, and its own next token.

        Returns:
            The events for the caller, and the rows that are done.
        """
        events: list[Event] = []
        for slot in self._slots:
            tokens, logprobs = self._chosen(slot, result)
            metrics.tokens += len(tokens)
            metrics.drafted += len(slot.draft)
            metrics.accepted += len(tokens) - 1
            cache.lengths_B[slot.row] += len(tokens)
            slot.last_token = tokens[-1]
            if slot.drafter is not None:
                slot.drafter.go_on(tokens, len(slot.draft))
            event = slot.sequence.accept(tokens, logprobs)
            if event is not None:
                events.append(event)
        ended = [slot for slot in self._slots if slot.sequence.finished]
        for slot in ended:
            if slot.drafter is not None:
                slot.drafter.remember()
        done = [slot.row for slot in ended]
        self._slots = [slot for slot in self._slots if not slot.sequence.finished]
        return events, done

    def _chosen(self, slot: _Slot, result: StepResult) -> tuple[list[int], list[float]]:
        if slot.sampler is None:
            return _verified(slot, result)
        if slot.sampler.needs_all:
            assert result.logprobs_BWV is not None
            token, logprob = slot.sampler.draw(result.logprobs_BWV[slot.row, 0])
        else:
            candidates = result.candidate_tokens_BWC[slot.row, 0], result.candidate_logprobs_BWC[slot.row, 0]
            token, logprob = slot.sampler.draw_from(*candidates)
        return [token], [logprob]

    def stop(self) -> list[Event]:
        """End every sequence as it is, because the deadline has passed."""
        return [slot.sequence.finish(DEADLINE) for slot in self._slots]

    def moved(self, rows: dict[int, int]) -> None:
        """Rows of the cache have new numbers: old -> new."""
        for slot in self._slots:
            slot.row = rows.get(slot.row, slot.row)


def _verified(slot: _Slot, result: StepResult) -> tuple[list[int], list[float]]:
    """The drafted tokens that the model would have chosen itself, and the one that it chooses behind them."""
    best = result.next_token_BW[slot.row].tolist()
    right = 0
    while right < len(slot.draft) and slot.draft[right] == best[right]:
        right += 1
    return best[: right + 1], result.next_logprob_BW[slot.row, : right + 1].tolist()


class Beams:
    """The beams of one search; there is no event before it ends."""

    needs_candidates, needs_logprobs = True, False

    def __init__(
        self,
        request: Request,
        sequences: Sequence[OutputSequence],
        rows: Sequence[int],
        start_id: int,
        search: BeamSearch,
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

    def take(self, result: StepResult, cache: Rows, metrics: EngineMetrics) -> tuple[list[Event], list[int]]:
        """Let the search choose which beams go on with what."""
        tokens_KC = result.candidate_tokens_BWC[self.rows, 0]
        parents = self._search.advance(tokens_KC, result.candidate_logprobs_BWC[self.rows, 0])
        cache.lengths_B[self.rows] += 1
        metrics.tokens += len(self.rows)
        if self._search.finished:
            done, self.rows = self.rows, []
            return self._emit(), done
        cache.reorder(self.rows, [self.rows[parent] for parent in parents])
        self._last_tokens = [int(token) for token in self._search.last_tokens_K]
        return [], []

    def stop(self) -> list[Event]:
        """The best hypotheses so far."""
        return self._emit(DEADLINE)

    def _emit(self, reason: str = "") -> list[Event]:
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


RunningRequest = SampledSequences | Beams
"""A request that has been admitted: it holds rows of the cache."""


def start_running(
    request: Request,
    sequences: Sequence[OutputSequence],
    rows: Sequence[int],
    *,
    start_id: int,
    eos_id: int,
    seed: int,
    drafter: Drafter | None = None,
) -> RunningRequest:
    """Put a request into its rows.

    Args:
        request: what the caller asked for.
        sequences: as many as it returns.
        rows: of the cache, as many as it takes.
        start_id: T5's first decoder input.
        eos_id: T5's end token.
        seed: of the sampling.
        drafter: for a greedy sequence; None drafts nothing.
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
        return SampledSequences(request, sequences, rows, start_id, [None], drafter)
    samplers = [Sampler(options, seed, i, CANDIDATES) for i in range(len(sequences))]
    return SampledSequences(request, sequences, rows, start_id, samplers, None)
