"""What people say of answers: checked, stored, exported, purged.

record.py          one piece of feedback and its limits
feedback_store.py  the database: SQLite, or PostgreSQL by URL
cli.py             ``neuro-latent feedback``
"""

from neuro_latent_serving.feedback.feedback_store import FeedbackStats, FeedbackStore, Stored
from neuro_latent_serving.feedback.record import FeedbackEntry, FeedbackRecord

__all__ = ["FeedbackEntry", "FeedbackRecord", "FeedbackStats", "FeedbackStore", "Stored"]
