"""Beam search of one request: token for token that of Hugging Face ``generate(early_stopping=False)``.

Shape letters: ``K`` beams, ``C`` candidates of a beam.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from neuro_latent_serving.engine.contract import Floats, Ids


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One sequence that a search found.

    Attributes:
        tokens: without start and end token.
        sum_logprob: log-probability of the chosen tokens under the model, the end token's included.
        chosen: how many tokens that counts: those of ``tokens``, and the end token.
        finished: whether it ends with the end token ("stop"); else it was cut ("length", or a deadline).
    """

    tokens: tuple[int, ...]
    sum_logprob: float
    chosen: int
    finished: bool


class BeamSearch:
    """The beams of one request; whoever runs the model brings the candidates and reorders the cache.

    Scores are float32 like Hugging Face's, so that sums round alike. A hypothesis is ranked by its summed
    log-probability over ``chosen ** length_penalty``. As there, an end token counts only among the ``num_beams`` best
    candidates of its step, and the search ends early only when ``num_beams`` hypotheses are found and the best running
    beam, cut here, would not beat the worst of them; longer ones are not considered.

    Attributes:
        finished: whether the search is over; then :meth:`hypotheses` is the answer.

    Args:
        num_beams: at least 2; with one, Hugging Face does not search but decode greedily.
        num_return_sequences: 1 to ``num_beams``.
        max_length: the most tokens chosen, the end token included; at least 1.
        length_penalty: above 0 prefers longer sequences, below 0 shorter ones. (A score below -1e9, which takes a
            penalty of about -3 and 200 tokens, is the one case in which Hugging Face differs: it takes it for an empty
            place.)
        eos_id: the end token.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(
        self, *, num_beams: int, num_return_sequences: int, max_length: int, length_penalty: float, eos_id: int
    ) -> None:
        if num_beams < 2:
            raise ValueError(f"num_beams must be at least 2, not {num_beams}")
        if not 1 <= num_return_sequences <= num_beams:
            raise ValueError(
                f"num_return_sequences must be between 1 and {num_beams} (num_beams), not {num_return_sequences}"
            )
        if max_length < 1:
            raise ValueError(f"max_length must be at least 1, not {max_length}")
        self.finished = False
        self._beams, self._wanted = num_beams, num_return_sequences
        self._max_length, self._penalty, self._eos = max_length, length_penalty, eos_id
        self._length = 0
        self._tokens: list[tuple[int, ...]] = [()] * num_beams  # running beams, best first
        self._totals_K: Floats = np.zeros(num_beams, dtype=np.float32)
        self._ended: list[tuple[np.float32, Hypothesis]] = []  # at most num_beams, with their scores, best first

    @property
    def last_tokens_K(self) -> Ids:
        """The token that each running beam was extended with: the next decoder input, int64 [K].

        Raises:
            IndexError: there was no step yet.
        """
        return np.array([tokens[-1] for tokens in self._tokens], dtype=np.int64)

    def advance(self, tokens_KC: Ids, logprobs_KC: Floats) -> npt.NDArray[np.intp]:
        """One step.

        Args:
            tokens_KC: the best next tokens of each running beam, best first; C at least twice the beams, or the whole
                vocabulary where that is smaller. On the first step only row 0 counts.
            logprobs_KC: their log-probabilities under the model.

        Returns:
            For each beam that runs on, the row of the cache that it continues: intp [K].

        Raises:
            RuntimeError: the search is over.
        """
        if self.finished:
            raise RuntimeError("the search is over")
        totals_KC = self._totals_K[:, None] + logprobs_KC
        if not self._length:
            totals_KC[1:] = -np.inf  # all beams are still the same sequence
        self._length += 1
        # A row has at most one end token, so twice the beams always hold enough unfinished sequences.
        best = np.argsort(-totals_KC, axis=None, kind="stable")[: 2 * self._beams]
        rows = best // tokens_KC.shape[1]
        tokens, totals = tokens_KC.ravel()[best], totals_KC.ravel()[best]
        self._end(rows[: self._beams], tokens[: self._beams], totals[: self._beams])
        on = np.flatnonzero(tokens != self._eos)[: self._beams]
        self._tokens = [(*self._tokens[row], int(token)) for row, token in zip(rows[on], tokens[on], strict=True)]
        self._totals_K = totals[on]
        self.finished = self._length == self._max_length or self._cannot_improve()
        parents_K: npt.NDArray[np.intp] = rows[on]
        return parents_K

    def _end(self, rows: npt.NDArray[np.intp], tokens: Ids, totals: Floats) -> None:
        """Keep the best hypotheses, those included that end here."""
        for row, token, total in zip(rows, tokens, totals, strict=True):
            stops = bool(token == self._eos)
            if not stops and self._length < self._max_length:
                continue
            if np.isneginf(total):
                continue  # the copy of a beam, which only a tiny vocabulary lets through
            written = self._tokens[row] if stops else (*self._tokens[row], int(token))
            hypothesis = Hypothesis(written, float(total), self._length, stops)
            self._ended.append((self._score(total), hypothesis))
        self._ended.sort(key=lambda ended: -ended[0])
        del self._ended[self._beams :]

    def _score(self, total: np.float32) -> np.float32:
        return total / np.float32(self._length**self._penalty)

    def _cannot_improve(self) -> bool:
        return len(self._ended) == self._beams and bool(self._score(self._totals_K[0]) <= self._ended[-1][0])

    def hypotheses(self) -> list[Hypothesis]:
        """The ``num_return_sequences`` best, best first; may be asked at any time, for a deadline.

        While the search is not over, the running beams fill up what has not ended yet. There are fewer hypotheses than
        asked for only when the vocabulary does not allow that many sequences.
        """
        found = [hypothesis for _, hypothesis in self._ended]
        if not self.finished:
            found += [
                Hypothesis(tokens, float(total), self._length, False)
                for tokens, total in zip(self._tokens, self._totals_K, strict=True)
                if not np.isneginf(total)
            ]
        return found[: self._wanted]
