"""Settings that a server's start hands to its models through the environment."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

GUARD_VARIABLE = "NEURO_LATENT_GUARD"
"""Environment variable that switches the guard off with the value ``off``; set by ``neuro-latent serve --no-guard``."""


def _read(variable: str, kind: Any, default: Any) -> Any:
    text = os.environ.get(variable, "").strip()
    try:
        return TypeAdapter(kind).validate_python(text) if text else default
    except ValidationError as error:
        wrong = error.errors()[0]["msg"].replace("Input should be", "must be")
        raise ValueError(f"{variable} {wrong}, not {text!r}") from None


def guard_is_on() -> bool:
    """Whether finished texts are guarded.

    Raises:
        ValueError: the variable is neither ``on`` nor ``off``.
    """
    return bool(_read(GUARD_VARIABLE, Literal["on", "off"], "on") == "on")


MIN_CONFIDENCE_VARIABLE = "NEURO_LATENT_MIN_CONFIDENCE"
"""Environment variable with the least confidence of texts that are served, for all adapters; set by
``neuro-latent serve --min-confidence``."""


def min_confidence() -> float | None:
    """The server's least confidence; None leaves it to each adapter.

    Raises:
        ValueError: the variable holds no number between 0 and 1.
    """
    least: float | None = _read(MIN_CONFIDENCE_VARIABLE, Annotated[float, Field(ge=0, le=1)], None)
    return least


CACHE_VARIABLE = "NEURO_LATENT_CACHE_MB"
"""Environment variable with the size of each cache; set by ``neuro-latent serve --cache-mb``."""
CACHE_MB = 32
"""Of each cache, where nobody says."""


def cache_bytes() -> int:
    """The most bytes of each cache: of the encoder, of the T5 encoder, of whole greedy answers.

    Raises:
        ValueError: the variable holds no number from 0 on.
    """
    megabytes: int = _read(CACHE_VARIABLE, Annotated[int, Field(ge=0)], CACHE_MB)
    return megabytes * 2**20


FEEDBACK_SECRETS_VARIABLE = "NEURO_LATENT_FEEDBACK_SECRETS"
"""Environment variable that says what becomes of feedback with a secret in a text: ``keep`` (the default) or
``refuse``."""


def refuses_secrets() -> bool:
    """Whether feedback with a secret is refused.

    Raises:
        ValueError: the variable is neither ``keep`` nor ``refuse``.
    """
    return bool(_read(FEEDBACK_SECRETS_VARIABLE, Literal["keep", "refuse"], "keep") == "refuse")


FEEDBACK_VARIABLE = "NEURO_LATENT_FEEDBACK_URL"
"""Environment variable with the database of the feedback, as SQLAlchemy writes it: ``sqlite:////path/to/file`` or
``postgresql+psycopg://user@host/database``."""


def feedback_url() -> str:
    """Where feedback is stored: the variable, else a SQLite file among the user's data.

    Not in the model repository: an export replaces that as a whole, it may be read-only, and feedback outlives it.
    """
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return os.environ.get(FEEDBACK_VARIABLE) or f"sqlite:///{data / 'neuro-latent' / 'feedback.sqlite3'}"
