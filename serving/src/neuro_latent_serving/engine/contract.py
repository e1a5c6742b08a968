"""What the loop asks of a decoder, whatever it runs on.

Shape letters: ``B`` rows, ``W`` tokens a row, ``Q`` encoder tokens, ``D`` model width, ``N`` heads, ``H`` head width,
``V`` vocabulary, ``C`` candidates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from neuro_latent_serving.engine.rows import Ids as Ids
from neuro_latent_serving.engine.rows import Rows

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class StepResult:
    """What a step gives; the arrays may be overwritten by the next step.

    Attributes:
        next_token_BW: the best token after each token that was fed.
        next_logprob_BW: its log-probability.
        candidate_tokens_BWC: the best tokens, best first; only when asked for.
        candidate_logprobs_BWC: their log-probabilities; only when asked for.
        logprobs_BWV: of the whole vocabulary; only when asked for.
    """

    next_token_BW: Ids
    next_logprob_BW: Floats
    candidate_tokens_BWC: Ids
    candidate_logprobs_BWC: Floats
    logprobs_BWV: Floats | None


class Decoder(Protocol):
    """Runs the two decoder graphs over a cache."""

    @property
    def width(self) -> int:
        """``D``."""

    @property
    def most_encoder_tokens(self) -> int:
        """The longest prompt, as the encoder has made it."""

    @property
    def cache(self) -> Rows:
        """Its rows."""

    def join(self, hidden_QD: Floats, mask_Q: Ids, copies: int) -> range:
        """Prefill one prompt and add ``copies`` rows for it, with nothing written yet; returns their numbers.

        Raises:
            ValueError: so many rows are not free.
        """

    def step(self, tokens_BW: Ids, with_candidates: bool = False, with_logprobs: bool = False) -> StepResult:
        """Feed ``tokens_BW`` to the cache's rows, each after what it holds; the cache's lengths stay as they are.

        The caller says afterwards how many of the tokens count (:attr:`Rows.lengths_B`): what lies beyond is
        overwritten by the next step.
        """


@dataclass(frozen=True)
class DecoderSizes:
    """What the graphs' own shapes tell.

    Attributes:
        self_names: the step graph's inputs that hold the keys and values of what was written.
        cross_names: those of the prompt.
        columns: of the cache, where the graph takes no other number; it then has an input ``columns``, which says how
            many of them are looked at.
    """

    self_names: tuple[str, ...]
    cross_names: tuple[str, ...]
    heads: int
    head_width: int
    width: int
    vocabulary: int
    columns: int | None = None

    @classmethod
    def of(cls, prefill: Mapping[str, Sequence[Any]], step: Mapping[str, Sequence[Any]]) -> "DecoderSizes":
        """From the shapes of both graphs' inputs and outputs, by name."""
        past = [name for name in step if name.startswith("past_key_values.")]
        self_names = tuple(name for name in past if ".decoder." in name)
        _, heads, columns, head_width = step[self_names[0]]
        return cls(
            self_names=self_names,
            cross_names=tuple(name for name in past if ".encoder." in name),
            heads=heads,
            head_width=head_width,
            width=prefill["encoder_hidden_states"][2],
            vocabulary=step["logprobs"][2],
            columns=columns if "columns" in step else None,
        )


def present(past: str) -> str:
    """The output that goes on with an input of the cache."""
    return past.replace("past_key_values", "present")
