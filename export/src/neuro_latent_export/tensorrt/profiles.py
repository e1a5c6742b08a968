"""The sizes that an engine takes, and those that its kernels are chosen for.

Every engine has two optimization profiles. Both take all sizes; the first is tuned for one row, the second for a full
batch. Triton (and the decoder) takes the one that is nearer to what waits: the first for up to 8 rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from neuro_latent_core.limits import CACHE_COLUMNS, CANDIDATES, MAX_STEP_TOKENS
from neuro_latent_export.graphs import ENCODER_PATHS, PROJECTOR_PATH, Sizes
from neuro_latent_export.parity import DECODER_PATHS
from neuro_latent_trainer.model import MAX_SOURCE_TOKENS

ROWS: Final = 16
"""``max_batch_size`` of the templates, and the decoder's slots."""
USUAL_TOKENS: Final = 32
USUAL_COLUMNS: Final = 64


@dataclass(frozen=True)
class Range:
    """Sizes of an axis (or values of an input that is a size): the least, the one to be tuned for, the most."""

    least: int
    usual: int
    most: int


Profile = Mapping[str, Range]
"""By name of the axis, or of the input that is a size."""


def profiles(sizes: Sizes, encoder_max_tokens: int) -> dict[str, tuple[Profile, Profile]]:
    """The profiles of every graph, by its path in the repository.

    Args:
        sizes: of the system.
        encoder_max_tokens: the longest prompt that the encoder reads.
    """
    longest = sizes.soft_prompt_tokens + MAX_SOURCE_TOKENS
    tokens = Range(1, min(USUAL_TOKENS, encoder_max_tokens), encoder_max_tokens)
    source_tokens = Range(1, USUAL_TOKENS, MAX_SOURCE_TOKENS)
    encoder_tokens = Range(1, sizes.soft_prompt_tokens + USUAL_TOKENS, longest)
    encoder, t5_encoder = ENCODER_PATHS
    prefill, step = DECODER_PATHS
    axes: dict[str, Profile] = {
        encoder: {"tokens": tokens},
        PROJECTOR_PATH: {},
        t5_encoder: {"tokens": source_tokens},
        prefill: {"encoder_tokens": encoder_tokens},
        step: {
            "encoder_tokens": encoder_tokens,
            "width": Range(1, 1, MAX_STEP_TOKENS),
            "columns": Range(1, USUAL_COLUMNS, CACHE_COLUMNS),
            "candidates": Range(1, 1, CANDIDATES),
        },
    }
    one, many = Range(1, 1, ROWS), Range(1, ROWS, ROWS)
    return {path: ({"batch": one, **ranges}, {"batch": many, **ranges}) for path, ranges in axes.items()}
