"""What people say of answers: checked, stored, exported, purged.

record.py   one piece of feedback and its limits
store.py    the database: SQLite, or PostgreSQL by URL
cli.py      ``neuro-latent feedback``
"""

from neuro_latent_serving.feedback.record import FeedbackEntry, FeedbackRecord
from neuro_latent_serving.feedback.store import FeedbackStats, FeedbackStore, Stored

__all__ = ["FeedbackEntry", "FeedbackRecord", "FeedbackStats", "FeedbackStore", "Stored"]
