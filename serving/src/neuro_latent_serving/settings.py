"""Settings that a server's start hands to its models through the environment."""

import os

GUARD_VARIABLE = "NEURO_LATENT_GUARD"
"""Environment variable that switches the guard off with the value ``off``; set by ``neuro-latent serve --no-guard``."""


def guard_is_on() -> bool:
    """Whether finished texts are guarded.

    Raises:
        ValueError: the variable is neither ``on`` nor ``off``.
    """
    value = os.environ.get(GUARD_VARIABLE) or "on"
    if value not in ("on", "off"):
        raise ValueError(f"{GUARD_VARIABLE} must be on or off, not {value!r}")
    return value == "on"
