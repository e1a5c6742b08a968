"""Measures of texts: near the gold text, copied, keeping what must be kept, readable."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sacrebleu.metrics import CHRF

from neuro_latent_client.guard import is_degenerate, literals, missing
from neuro_latent_trainer.evaluation import statistics
from neuro_latent_trainer.evaluation.statistics import Interval


@dataclass(frozen=True, slots=True)
class TextMeasures:
    """Of one system's texts. Shares are 0 to 1.

    Attributes:
        chrf: character n-gram F-score against the gold texts, 0 to 100, mean of rows (Popović 2015, by sacrebleu).
        copied: share of texts that are the raw prompt again, of the rows whose gold text is not.
        literals_kept: share of the raw prompts' literals that the texts still have.
        degenerate: share of texts that nobody could use.
        length_ratio: characters of a text over those of its gold text, median.
    """

    chrf: Interval
    copied: Interval
    literals_kept: Interval
    degenerate: Interval
    length_ratio: float


def measure(raw: Sequence[str], gold: Sequence[str], texts: Sequence[str]) -> TextMeasures:
    """All measures of a system's texts.

    Args:
        raw: the raw prompts.
        gold: what they should become.
        texts: what the system made of them.
    """
    chrf = CHRF()
    scores = [chrf.sentence_score(text, [want]).score for text, want in zip(texts, gold, strict=True)]
    differs = [not same(a, b) for a, b in zip(raw, gold, strict=True)]
    asked = np.array([len(literals(prompt)) for prompt in raw], dtype=np.float64)
    lost = np.array([len(missing(prompt, text)) for prompt, text in zip(raw, texts, strict=True)], dtype=np.float64)
    kept = np.divide(asked - lost, asked, out=np.ones_like(asked), where=asked > 0)
    nothing = Interval(0.0, 0.0, 0.0)
    return TextMeasures(
        chrf=statistics.mean(scores),
        copied=statistics.mean([same(a, b) for a, b in zip(raw, texts, strict=True)], differs)
        if any(differs)
        else nothing,
        literals_kept=statistics.mean(kept, asked) if asked.any() else Interval(1.0, 1.0, 1.0),
        degenerate=statistics.mean([is_degenerate(text) for text in texts]),
        length_ratio=float(np.median([len(t) / max(len(g), 1) for t, g in zip(texts, gold, strict=True)])),
    )


def same(a: str, b: str) -> bool:
    """Whether two texts differ in case and white space only."""
    return a.casefold().split() == b.casefold().split()
