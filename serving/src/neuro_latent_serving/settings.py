"""Settings that a server's start hands to its models through the environment."""

import os
from pathlib import Path

GUARD_VARIABLE = "NEURO_LATENT_GUARD"
"""Environment variable that switches the guard off with the value ``off``; set by ``neuro-latent serve --no-guard``."""


def _one_of(variable: str, default: str, other: str) -> str:
    value = os.environ.get(variable) or default
    if value not in (default, other):
        raise ValueError(f"{variable} must be {default} or {other}, not {value!r}")
    return value


def guard_is_on() -> bool:
    """Whether finished texts are guarded.

    Raises:
        ValueError: the variable is neither ``on`` nor ``off``.
    """
    return _one_of(GUARD_VARIABLE, "on", "off") == "on"


MIN_CONFIDENCE_VARIABLE = "NEURO_LATENT_MIN_CONFIDENCE"
"""Environment variable with the least confidence of texts that are served, for all adapters; set by
``neuro-latent serve --min-confidence``."""


def min_confidence() -> float | None:
    """The server's least confidence; None leaves it to each adapter.

    Raises:
        ValueError: the variable holds no number between 0 and 1.
    """
    text = os.environ.get(MIN_CONFIDENCE_VARIABLE, "").strip()
    try:
        value = float(text) if text else None
    except ValueError:
        value = -1.0
    if value is not None and not 0 <= value <= 1:
        raise ValueError(f"{MIN_CONFIDENCE_VARIABLE} must be a number between 0 and 1, not {text!r}")
    return value


FEEDBACK_SECRETS_VARIABLE = "NEURO_LATENT_FEEDBACK_SECRETS"
"""Environment variable that says what becomes of feedback with a secret in a text: ``keep`` (the default) or
``refuse``."""


def refuses_secrets() -> bool:
    """Whether feedback with a secret is refused.

    Raises:
        ValueError: the variable is neither ``keep`` nor ``refuse``.
    """
    return _one_of(FEEDBACK_SECRETS_VARIABLE, "keep", "refuse") == "refuse"


FEEDBACK_VARIABLE = "NEURO_LATENT_FEEDBACK_URL"
"""Environment variable with the database of the feedback, as SQLAlchemy writes it: ``sqlite:////path/to/file`` or
``postgresql+psycopg://user@host/database``."""


def feedback_url() -> str:
    """Where feedback is stored: the variable, else a SQLite file among the user's data.

    Not in the model repository: an export replaces that as a whole, it may be read-only, and feedback outlives it.
    """
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return os.environ.get(FEEDBACK_VARIABLE) or f"sqlite:///{data / 'neuro-latent' / 'feedback.sqlite3'}"
