"""Limits that several parts of the system have to agree on."""

from typing import Final

MAX_PROMPT_CHARACTERS: Final = 32_768
"""The longest raw prompt that is read at all; the models then read its beginning and its end."""

BUCKETS: Final = (*range(8, 32, 4), *range(32, 64, 8), *range(64, 128, 16), *range(128, 256, 32), *range(256, 513, 64))
"""Prompts are padded to one of these numbers of tokens, so that requests of similar length have one shape and batch.
They are close together, because an encoder's time grows with every token, real or not."""

MAX_ENCODER_TOKENS: Final = 2048
"""The most encoder states that the decoder takes; the ensembles never send more than soft prompts and 512 tokens."""

MAX_NEW_TOKENS: Final = 512
MAX_STEP_TOKENS: Final = 8
"""The most tokens a row may feed in one step of the decoder."""
CACHE_COLUMNS: Final = MAX_NEW_TOKENS + MAX_STEP_TOKENS
"""The widest KV cache."""
CANDIDATES: Final = 64
"""How many of the best tokens the decoder returns where a row samples or searches: a constant, because a row's result
may not depend on what its mates asked for."""

MAX_SEQUENCES: Final = 8
MAX_BEAMS: Final = 8
MAX_DEADLINE_MS: Final = 600_000

MAX_ADAPTER_NAME: Final = 64
ADAPTER_NAME: Final = f"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_ADAPTER_NAME - 1}}}"
"""A regular expression; a name is a folder's name too."""
