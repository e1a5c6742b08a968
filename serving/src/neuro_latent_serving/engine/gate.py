"""What an adapter says of a prompt beside its soft prompts: the form of its text, and how sure it is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from neuro_latent_core.form import Form

OPEN_LOGIT = 10.0
"""The logit of an adapter that knows no better: a confidence of almost 1."""


@dataclass(frozen=True, slots=True)
class GateOutput:
    """The numbers behind a confidence, as the projector gives them for one prompt.

    Attributes:
        form: what the adapter writes.
        prior: the confidence's logit before anything is written.
        logprob_weight: of the text's mean token log-probability (nats).
        threshold: the adapter's own least confidence.
    """

    form: Form = "rewrite"
    prior: float = OPEN_LOGIT
    logprob_weight: float = 0.0
    threshold: float = 0.0

    @classmethod
    def of_values(cls, values_4: Sequence[float]) -> "GateOutput":
        """Of a row of the projector's output ``gate``."""
        prior, weight, threshold, form = (float(value) for value in values_4)
        return cls("complement" if form >= 0.5 else "rewrite", prior, weight, threshold)

    def confidence(self, mean_logprob: float) -> float:
        """How sure the adapter is of a text with this mean token log-probability, in [0, 1]."""
        logit = self.prior + self.logprob_weight * mean_logprob
        return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


OPEN: Final = GateOutput()
"""Of a rewrite that is served in any case."""
