"""The guard: rejects a text that breaks a rule, and never repairs one (:mod:`~neuro_latent_core.guard.rules`)."""

from neuro_latent_core.guard.literals import literals, missing
from neuro_latent_core.guard.rules import BLANK, LANGUAGE, NOT_SURE, UNFINISHED, is_blank, is_degenerate, rejects

__all__ = [
    "BLANK",
    "LANGUAGE",
    "NOT_SURE",
    "UNFINISHED",
    "is_blank",
    "is_degenerate",
    "literals",
    "missing",
    "rejects",
]
