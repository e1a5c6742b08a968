"""The database of the feedback, as far as it can be told without a connection."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.engine import make_url

from neuro_latent_serving.doctor.catalogue import Finding, Outcome
from neuro_latent_serving.doctor.subject import Subject
from neuro_latent_serving.feedback.store import FeedbackStore, damage, shown_url, sqlite_file
from neuro_latent_serving.settings import FEEDBACK_VARIABLE, feedback_url

MIB = 2**20
DISK_BYTES = 256 * MIB


def check(_: Subject) -> Iterator[Outcome]:
    """Its URL, and for SQLite the file and its disk."""
    url = feedback_url()
    try:
        FeedbackStore(url).close()
    except ValueError as error:
        mend = f'Correct {FEEDBACK_VARIABLE}; for PostgreSQL: pip install "neuro-latent-serving[postgresql]".'
        yield Finding("feedback-url", FEEDBACK_VARIABLE, str(error), mend)
        return
    parsed = make_url(url)
    file = sqlite_file(parsed)
    if file is None:
        yield f"feedback goes to {shown_url(parsed)}"
        return
    # Not Path.exists(), which raises below a folder that only its owner may enter.
    nearest = next(path for path in (file, *file.parents) if os.path.exists(path))
    wanted = os.W_OK if nearest == file else os.W_OK | os.X_OK
    if not os.access(nearest, wanted) or os.path.isdir(nearest) == (nearest == file):
        what = f"{nearest} cannot be written, or is in its way"
        yield Finding("feedback-unwritable", str(file), what, f"Name another with {FEEDBACK_VARIABLE}.")
    elif (free := shutil.disk_usage(nearest).free) < DISK_BYTES:
        what = f"{free // MIB} MiB are free on its disk"
        yield Finding("disk-low", str(file), what, f"Make room, or name another with {FEEDBACK_VARIABLE}.")
    else:
        yield from _inside(file, nearest)


def _inside(file: Path, nearest: Path) -> Iterator[Outcome]:
    try:
        found = damage(file) if nearest == file else ""
    except sqlite3.Error as error:
        is_locked = getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
        mend = (
            "End what holds it locked." if is_locked else f"See to its disk, or name another with {FEEDBACK_VARIABLE}."
        )
        yield Finding("feedback-unwritable", str(file), f"it cannot be read now: {error}", mend)
        return
    if found:
        mend = f"Move it away and restore a copy of it, or name another with {FEEDBACK_VARIABLE}."
        yield Finding("feedback-damaged", str(file), " ".join(found.split()), mend)
    else:
        yield f"feedback goes to {file}"
