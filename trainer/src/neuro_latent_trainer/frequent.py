"""Sentences that an adapter learns to write for many prompts; a new server drafts from them.

Nothing else of the training texts is in an adapter folder, so only what stands in several of them counts.
"""

import re
from collections import Counter
from collections.abc import Iterable

LEAST_TIMES = 3
MOST_SENTENCES = 4000

_BETWEEN_SENTENCES = re.compile(r"(?<=[.!?:])\s+")


def frequent_sentences(texts: Iterable[str]) -> dict[str, int]:
    """The sentences that stand in at least :data:`LEAST_TIMES` texts, and in how many.

    >>> frequent_sentences(["Say who it is for. Be brief.", "Say who it is for.", "Say who it is for. Use a table."])
    {'Say who it is for.': 3}
    """
    counts = Counter(sentence for text in texts for sentence in dict.fromkeys(_BETWEEN_SENTENCES.split(text.strip())))
    return {text: times for text, times in counts.most_common(MOST_SENTENCES) if times >= LEAST_TIMES and text}
