"""What a model wrote, and what of it is served: the rule of the server's engine.

A complement ends before its first sentence at whose end the gate is not sure enough; of what is left the longest part
is served in which the guard finds nothing.

Shape letters: ``M`` parts of one text, ``E`` encoder width.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from neuro_latent_core.guard import NOT_SURE, rejects, sentences
from neuro_latent_trainer.adapter import Adapter


class Part(NamedTuple):
    """A whole text, or what of it ends with one of its sentences.

    Attributes:
        text: without white space at its ends.
        mean_logprob: of its tokens, in nats; a whole text has ``</s>`` among them.
    """

    text: str
    mean_logprob: float


def parts_of(ids: list[int], logprobs: Sequence[float], eos: int, decode: Callable[[list[int]], str]) -> list[Part]:
    """The whole text and its parts, the longest first; of its tokens and the log-probability of each."""
    sums = list(accumulate(logprobs))
    tokens = ids[:-1] if ids[-1:] == [eos] else ids
    shorter = sentences.parts(tokens, range(len(tokens) - 1, 0, -1), decode)
    return [
        Part(decode(tokens).strip(), sums[-1] / len(sums)),
        *(Part(text, sums[count - 1] / count) for count, text in shorter),
    ]


@torch.no_grad()
def served(adapter: Adapter, embedding_E: Tensor, raw: str, parts: Sequence[Part]) -> tuple[str, str]:
    """What of a text is served, and why nothing is; its parts are given the longest first, of a rewrite only the first
    counts.

    Returns:
        The longest part in which the guard finds nothing, of those that the gate is sure enough of to their end and at
        the end of each sentence before, and ""; or "" and what is wrong with the longest that was written.
    """
    form = adapter.config.form
    parts = parts if form == "complement" else parts[:1]
    embedding_ME = embedding_E.expand(len(parts), -1)
    confidence_M = adapter.confidence(embedding_ME, embedding_E.new_tensor([part.mean_logprob for part in parts]))
    sure = (confidence_M >= adapter.gate_values(embedding_ME)[:, 2]).tolist()
    behind = max((place for place, enough in enumerate(sure) if not enough), default=-1)
    reasons = [] if behind < 0 else [NOT_SURE]
    for part in parts[behind + 1 :]:
        reasons.append(rejects(raw, part.text, form))
        if not reasons[-1]:
            return part.text, ""
    return "", reasons[0]
