"""How many cores there are to work with."""

import math
import os
from pathlib import Path

THREADS_VARIABLE = "NEURO_LATENT_THREADS"
"""Environment variable with the cores that a server may use; set by ``neuro-latent serve --threads``."""

CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def available_cores() -> int:
    """The cores that this process may use: what it is pinned to, or a container's CPU limit if that is less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    try:
        quota, period = CGROUP_QUOTA.read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup, or no limit ("max")
        return cores


def default_threads() -> int:
    """Threads of a session that nobody has set: ``NEURO_LATENT_THREADS``, else every core.

    The sessions of a server (encoders, adapter, engine) all get this many: they work in turn for one request, and
    their threads sleep otherwise.

    Raises:
        ValueError: the variable is no number above 0.
    """
    given = os.environ.get(THREADS_VARIABLE)
    if not given:
        return available_cores()
    if not given.isdecimal() or int(given) < 1:
        raise ValueError(f"{THREADS_VARIABLE} must be a number above 0, not {given!r}")
    return int(given)
