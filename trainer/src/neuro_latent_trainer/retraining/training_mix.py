"""Which records a retraining learns from and which it is judged by: feedback and original data, mixed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from neuro_latent_core.form import Form
from neuro_latent_trainer.data import Record, key, place, sample_records
from neuro_latent_trainer.retraining.feedback_examples import EDIT
from neuro_latent_trainer.retraining.retrain_config import RetrainConfig

SEED = 0
"""Of the feedback's split. Never another: a prompt that was held out once must be held out of every retraining."""


@dataclass(frozen=True)
class TrainingMix:
    """The records of a retraining; no raw prompt of a held-out one is trained on.

    Attributes:
        train: feedback and original data, repeated as the shares ask.
        original, feedback: held out. Of feedback only what somebody wrote: a liked answer is the old adapter's own
            text, which no other adapter finds as likely.
        feedback_rows, original_rows: how much of ``train`` is of which kind.
        distinct: how many records of feedback are in ``train``.
    """

    train: tuple[Record, ...]
    original: tuple[Record, ...]
    feedback: tuple[Record, ...]
    feedback_rows: int
    original_rows: int
    distinct: int

    def describe(self) -> str:
        """One line."""
        return (
            f"an epoch has {self.feedback_rows} rows of feedback ({self.distinct} different ones) and "
            f"{self.original_rows} of the original data; held out: {len(self.feedback)} edits, "
            f"{len(self.original)} rows of the original data"
        )


def mix(
    examples: Sequence[Record],
    original: Sequence[Record],
    held_out: Sequence[Record],
    form: Form,
    config: RetrainConfig,
) -> TrainingMix:
    """Mix feedback with original data and hold out a share of its prompts.

    Which prompts of the feedback are held out follows from their texts alone, so it is the same in every retraining. A
    prompt that is held out of either kind is trained on in neither.

    An epoch has as many rows of the original data as the share asks for, chosen by a hash, and repeats rows of feedback
    only where there is more original data than that. Where there is too little, it is the original data that is
    repeated: the feedback's share is a bound. Records that have nothing to write in the form are left aside.

    ``examples`` are the records of feedback, ``original`` what the base was trained on, ``held_out`` of the same data.
    """
    never = {key(r.raw_prompt) for r in held_out}
    mine = {key(r.raw_prompt) for r in examples}
    judged = {name for name in mine if name in never or place(name, SEED) < config.held_out_share}
    old = [r for r in original if r.target(form) is not None and key(r.raw_prompt) not in judged | never]
    new = [r for r in examples if key(r.raw_prompt) not in judged]
    feedback_rows: list[Record] = []
    if new:
        ratio = (1 - config.feedback_share) / config.feedback_share
        copies = max(1, min(config.most_copies, int(len(old) / (ratio * len(new)))))
        feedback_rows = new * copies
        wanted = math.ceil(ratio * len(feedback_rows))
        old = old * (wanted // len(old)) + sample_records(old, wanted % len(old)) if old else []
    return TrainingMix(
        train=(*feedback_rows, *old),
        original=tuple(sample_records([r for r in held_out if r.target(form) is not None], config.judged_rows)),
        feedback=tuple(
            sample_records(
                [r for r in examples if key(r.raw_prompt) in judged and r.source == EDIT], config.judged_rows
            )
        ),
        feedback_rows=len(feedback_rows),
        original_rows=len(old),
        distinct=len(new),
    )
