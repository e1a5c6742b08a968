"""The choice of the next token.

Shape letters: ``V`` vocabulary, ``C`` best candidates, ``N`` either, ``M`` those that were not cut.
"""

import numpy as np
import numpy.typing as npt

from neuro_latent_core.options import RequestOptions
from neuro_latent_serving.engine.contract import Ids

Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


def keep(logits_N: Floats, options: RequestOptions) -> tuple[Indices, npt.NDArray[np.float64]]:
    """Temperature, then top-k, then top-p, in the order of Hugging Face ``generate``.

    Returns:
        What is not cut, in ascending order [M], and its logits over the temperature [M].
    """
    kept = _largest(logits_N, options.top_k or len(logits_N))
    scores = logits_N[kept].astype(np.float64) / options.temperature
    if options.top_p < 1:
        likely = _nucleus(scores, options.top_p)
        kept, scores = kept[likely], scores[likely]
    return kept, scores


def _largest(values_N: Floats, count: int) -> Indices:
    """Where the ``count`` largest values are, and those that equal the least of them, in ascending order."""
    if count >= len(values_N):
        return np.arange(len(values_N))
    return np.flatnonzero(values_N >= np.partition(values_N, -count)[-count])


def _nucleus(scores_N: npt.NDArray[np.float64], top_p: float) -> Indices:
    """The fewest of the most likely that together reach ``top_p``, in ascending order; the first of equal ones stay."""
    weights = np.exp(scores_N - scores_N.max())
    total = weights.sum()
    # Tokens below this weight are less than 1 - top_p together; so only the others, mostly few, have to be sorted.
    likely = np.flatnonzero(weights >= (1 - top_p) * total / len(weights))
    order = likely[np.argsort(-scores_N[likely], kind="stable")]
    reached = np.cumsum(weights[order])
    return np.sort(order[: 1 + np.searchsorted(reached[:-1], top_p * total)])


class Sampler:
    """Draws the tokens of one sequence from its own random numbers, so that batch mates do not matter.

    Args:
        options: temperature (above 0), top_k and top_p.
        seed: of the request.
        sequence_index: which of the request's sequences.
        candidates: how many of the best tokens :meth:`draw_from` is given.
    """

    def __init__(self, options: RequestOptions, seed: int, sequence_index: int, candidates: int = 0) -> None:
        self._options = options
        self._rng = np.random.default_rng((seed, sequence_index))
        self.needs_all = not 0 < options.top_k <= candidates
        """Whether only :meth:`draw` will do, because the best candidates do not hold the top-k set."""

    def draw(self, logprobs_V: Floats) -> tuple[int, float]:
        """The next token and its log-probability under the model (before temperature and cuts).

        Args:
            logprobs_V: log-probability of every token. Logits would draw the same token, with its logit.
        """
        kept, scores = keep(logprobs_V, self._options)
        cumulative = np.cumsum(np.exp(scores - scores.max()))
        drawn = int(np.searchsorted(cumulative, self._rng.random() * cumulative[-1], side="right"))
        token = int(kept[min(drawn, len(kept) - 1)])
        return token, float(logprobs_V[token])

    def draw_from(self, tokens_C: Ids, logprobs_C: Floats) -> tuple[int, float]:
        """Like :meth:`draw`, and the same token for the same random numbers, from the best candidates alone.

        Only where not :attr:`needs_all`. (Of tokens exactly as likely as the last of the top-k set, `draw` keeps all,
        this method those among the candidates.)

        Args:
            tokens_C: the best tokens.
            logprobs_C: their log-probabilities under the model.
        """
        order = np.argsort(tokens_C)  # as in a whole row
        position, logprob = self.draw(logprobs_C[order])
        return int(tokens_C[order[position]]), logprob
