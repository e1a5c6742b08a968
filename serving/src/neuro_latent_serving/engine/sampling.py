"""The choice of the next token. ``V`` is the vocabulary."""

import numpy as np
import numpy.typing as npt

from neuro_latent_serving.options import GenerationOptions

Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]


def log_softmax(logits_V: Floats) -> npt.NDArray[np.float64]:
    """Log-probabilities, in float64."""
    shifted = logits_V.astype(np.float64) - float(logits_V.max())
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return result


def filter_logits(logits_V: Floats, options: GenerationOptions) -> npt.NDArray[np.float64]:
    """Temperature, then top-k, then top-p, in the order of Hugging Face ``generate``; -inf where cut."""
    scores = logits_V.astype(np.float64) / options.temperature
    if 0 < options.top_k < len(scores):
        scores[scores < np.partition(scores, -options.top_k)[-options.top_k]] = -np.inf
    if options.top_p < 1:
        order = np.argsort(scores)  # ascending: the tail is cut, the most likely token always stays
        cumulative = np.cumsum(np.exp(log_softmax(scores[order])))
        cut = order[:-1][cumulative[:-1] <= 1 - options.top_p]
        scores[cut] = -np.inf
    return scores


class Sampler:
    """Draws the tokens of one sequence from its own random numbers, so that batch mates do not matter."""

    def __init__(self, options: GenerationOptions, seed: int, sequence_index: int) -> None:
        self._options = options
        self._rng = np.random.default_rng((seed, sequence_index))

    def draw(self, logits_V: Floats) -> tuple[int, float]:
        """The next token and its log-probability under the model (before temperature and cuts)."""
        weights = np.exp(log_softmax(filter_logits(logits_V, self._options)))
        cumulative = np.cumsum(weights)
        token = int(np.searchsorted(cumulative, self._rng.random() * cumulative[-1], side="right"))
        token = min(token, len(weights) - 1)
        return token, float(log_softmax(logits_V)[token])
