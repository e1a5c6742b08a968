"""Measures of texts: near the gold text, changed where they should be, fit to be served.

A model's text is a complement or a rewrite, and so is the gold text: complements are compared with complements, so that
the raw prompt, which both begin with, does not count.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from rapidfuzz.distance import LCSseq
from sacrebleu.metrics import BLEU, CHRF

from neuro_latent_core.form import Form
from neuro_latent_core.guard import rejects
from neuro_latent_trainer.data import key
from neuro_latent_trainer.evaluation import statistics
from neuro_latent_trainer.evaluation.served import whole
from neuro_latent_trainer.evaluation.statistics import Floats, Interval

SELF_BLEU_ROWS: Final = 100
"""Of how many texts: the cost grows with the square."""


def by_row(
    raw: Sequence[str], gold: Sequence[str], texts: Sequence[str], form: Form
) -> dict[str, tuple[Floats, Floats]]:
    """What most figures of :func:`measure` are means of: by name, a value and a weight for every row.

    ``gold`` is what a system should write for the raw prompts, ``texts`` what it wrote. Shares are 0 to 1.

    - ``chrf``: character n-gram F-score against the gold text, 0 to 100 (Popović 2015, by sacrebleu).
    - ``rouge_l``: F of the longest common subsequence of words with the gold text (Lin 2004), 0 to 1.
    - ``served``: whether the prompt gets anything else than the raw prompt again.
    - ``unchanged``: whether it gets the raw prompt again, of the rows whose gold is not.
    - ``unneeded``: whether it gets something else, of the rows whose gold is the raw prompt.
    - ``rejected``: whether the guard rejects the text.
    - ``repetition``: share of the text's three-word sequences that it has had before.
    """
    once = np.ones(len(texts))

    def array(values: Iterable[float]) -> Floats:
        return np.array(list(values), dtype=np.float64)

    def changes(written: Sequence[str]) -> Floats:
        return array(key(a) != key(b) for a, b in zip(raw, whole(raw, written, form), strict=True))

    wanted, changed = changes(gold), changes(texts)
    bad = array(text != "" and bool(rejects(prompt, text, form)) for prompt, text in zip(raw, texts, strict=True))
    return {
        "chrf": (chrf(texts, gold), once),
        "rouge_l": (array(rouge_l(text, want) for text, want in zip(texts, gold, strict=True)), once),
        "served": (changed, once),
        "unchanged": (1 - changed, wanted),
        "unneeded": (changed, 1 - wanted),
        "rejected": (bad, once),
        "repetition": (array(repetition(text) for text in texts), once),
    }


def measure(raw: Sequence[str], gold: Sequence[str], texts: Sequence[str], form: Form) -> dict[str, Any]:
    """All figures of a system's texts, as JSON; arguments, and the figures that have an interval, as in :func:`by_row`.

    Beside them ``self_bleu``, how alike the texts of different prompts are: BLEU of a text against the others, 0 to
    100, mean of at most SELF_BLEU_ROWS rows (Zhu et al. 2018, by sacrebleu); and ``length_ratio``: characters of a text
    over those of its gold text, median of the rows whose gold has any.
    """
    means = {
        name: statistics.mean(values, weights) if weights.any() else Interval(0.0, 0.0, 0.0)
        for name, (values, weights) in by_row(raw, gold, texts, form).items()
    }
    lengths = [len(text) / len(want) for text, want in zip(texts, gold, strict=True) if want]
    return {
        **{name: found.as_json() for name, found in means.items()},
        "self_bleu": round(self_bleu(texts), 4),
        "length_ratio": round(float(np.median(lengths)), 4) if lengths else 0.0,
    }


def chrf(texts: Sequence[str], gold: Sequence[str]) -> Floats:
    """Character n-gram F-score of each text, 0 to 100; 100 where both are blank."""
    scorer = CHRF()
    return np.array(
        [
            scorer.sentence_score(text, [want]).score if want.strip() else 100.0 * (not text.strip())
            for text, want in zip(texts, gold, strict=True)
        ]
    )


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
    """Mean BLEU of each of the first SELF_BLEU_ROWS texts against the others of them; empty texts do not count."""
    some = [text for text in texts if text][:SELF_BLEU_ROWS]
    if len(some) < 2:
        return 0.0
    bleu = BLEU(effective_order=True)
    scores = [bleu.sentence_score(text, some[:i] + some[i + 1 :]).score for i, text in enumerate(some)]
    return float(np.mean(scores))
