"""Measures of texts: near the gold text, copied, keeping what must be kept, readable."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from rapidfuzz.distance import LCSseq
from sacrebleu.metrics import BLEU, CHRF

from neuro_latent_client.guard import is_degenerate, is_off_subject, literals, missing
from neuro_latent_trainer.evaluation import statistics
from neuro_latent_trainer.evaluation.statistics import Floats, Interval

SELF_BLEU_ROWS: Final = 100
"""Of how many texts: the cost grows with the square."""


@dataclass(frozen=True, slots=True)
class TextMeasures:
    """Of one system's texts. Shares are 0 to 1.

    Attributes:
        chrf: character n-gram F-score against the gold texts, 0 to 100, mean of rows (Popović 2015, by sacrebleu).
        rouge_l: F of the longest common subsequence of words with the gold text (Lin 2004), 0 to 1, mean of rows.
        copied: share of texts that are the raw prompt again, of the rows whose gold text is not.
        literals_kept: share of the raw prompts' literals that the texts still have.
        degenerate: share of texts that nobody could use.
        off_subject: share of texts that have lost what their prompt is about.
        repetition: share of a text's three-word sequences that it has had before, mean of rows.
        self_bleu: how alike the texts of different prompts are: BLEU of a text against the others, 0 to 100, mean of
            at most SELF_BLEU_ROWS rows (Zhu et al. 2018, by sacrebleu).
        length_ratio: characters of a text over those of its gold text, median.
    """

    chrf: Interval
    rouge_l: Interval
    copied: Interval
    literals_kept: Interval
    degenerate: Interval
    off_subject: Interval
    repetition: Interval
    self_bleu: float
    length_ratio: float


def by_row(raw: Sequence[str], gold: Sequence[str], texts: Sequence[str]) -> dict[str, tuple[Floats, Floats]]:
    """What :class:`TextMeasures` are means of: by name, a value and a weight for every row.

    Args:
        raw: the raw prompts.
        gold: what they should become.
        texts: what a system made of them.
    """
    once = np.ones(len(texts))
    differs = np.array([not same(a, b) for a, b in zip(raw, gold, strict=True)], dtype=np.float64)
    asked = np.array([len(literals(prompt)) for prompt in raw], dtype=np.float64)
    lost = np.array([len(missing(prompt, text)) for prompt, text in zip(raw, texts, strict=True)], dtype=np.float64)
    kept = np.divide(asked - lost, asked, out=np.ones_like(asked), where=asked > 0)

    def array(values: Iterable[float]) -> Floats:
        return np.array(list(values), dtype=np.float64)

    return {
        "chrf": (chrf(texts, gold), once),
        "rouge_l": (array(rouge_l(text, want) for text, want in zip(texts, gold, strict=True)), once),
        "copied": (array(same(a, b) for a, b in zip(raw, texts, strict=True)), differs),
        "literals_kept": (kept, asked),
        "degenerate": (array(is_degenerate(text) for text in texts), once),
        "off_subject": (array(is_off_subject(a, b) for a, b in zip(raw, texts, strict=True)), once),
        "repetition": (array(repetition(text) for text in texts), once),
    }


def measure(raw: Sequence[str], gold: Sequence[str], texts: Sequence[str]) -> TextMeasures:
    """All measures of a system's texts; arguments as in :func:`by_row`."""
    means = {
        # Where nothing could be copied or lost, nothing was.
        name: statistics.mean(values, weights) if weights.any() else _certain(name == "literals_kept")
        for name, (values, weights) in by_row(raw, gold, texts).items()
    }
    return TextMeasures(
        **means,
        self_bleu=self_bleu(texts),
        length_ratio=float(np.median([len(t) / max(len(g), 1) for t, g in zip(texts, gold, strict=True)])),
    )


def _certain(value: float) -> Interval:
    return Interval(float(value), float(value), float(value))


def same(a: str, b: str) -> bool:
    """Whether two texts differ in case and white space only."""
    return a.casefold().split() == b.casefold().split()


def chrf(texts: Sequence[str], gold: Sequence[str]) -> Floats:
    """Character n-gram F-score of each text, 0 to 100."""
    scorer = CHRF()
    return np.array([scorer.sentence_score(text, [want]).score for text, want in zip(texts, gold, strict=True)])


def words(text: str) -> list[str]:
    """Lower-case runs of letters and digits."""
    return re.findall(r"[^\W_]+", text.lower())


def rouge_l(text: str, gold: str) -> float:
    """F1 of the longest common subsequence of words; 1 where both have none."""
    ours, theirs = words(text), words(gold)
    if not ours and not theirs:
        return 1.0
    return 2 * LCSseq.similarity(ours, theirs) / (len(ours) + len(theirs))


def repetition(text: str) -> float:
    """The share of three-word sequences that stood in the text before."""
    found = words(text)
    triples = list(zip(found, found[1:], found[2:], strict=False))
    return 1 - len(set(triples)) / len(triples) if triples else 0.0


def self_bleu(texts: Sequence[str]) -> float:
    """Mean BLEU of each of the first SELF_BLEU_ROWS texts against the others of them."""
    some = list(texts[:SELF_BLEU_ROWS])
    bleu = BLEU(effective_order=True)
    scores = [bleu.sentence_score(text, some[:i] + some[i + 1 :]).score for i, text in enumerate(some)]
    return float(np.mean(scores))
