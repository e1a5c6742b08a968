"""Checks of settings; each raises a ValueError that names the setting, its value and the range."""

import math
from collections.abc import Sequence
from typing import Any


def check_at_least(settings: Any, least: float, *names: str) -> None:
    """Each is a number of at least ``least``."""
    for name in names:
        if not least <= getattr(settings, name) < math.inf:
            raise ValueError(f"{name} must be at least {least}, not {getattr(settings, name)}")


def check_positive(settings: Any, *names: str) -> None:
    """Each is a number above 0."""
    for name in names:
        if not 0 < getattr(settings, name) < math.inf:
            raise ValueError(f"{name} must be above 0, not {getattr(settings, name)}")


def check_one_of(settings: Any, name: str, choices: Sequence[str]) -> None:
    """It is one of the choices."""
    if getattr(settings, name) not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {getattr(settings, name)!r}")
