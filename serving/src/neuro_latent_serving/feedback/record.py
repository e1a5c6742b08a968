"""One piece of feedback, and the limits of its fields."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from neuro_latent_core.errors import InvalidInput
from neuro_latent_core.protocol import FEEDBACK_LIMITS
from neuro_latent_core.secrets import has_secret
from neuro_latent_serving.checks import check_text

NOT_BLANK = ("request_id", "raw_prompt")
"""An enhanced prompt may be empty: a server without guard can answer so, and that deserves its -1."""


@dataclass(frozen=True, slots=True)
class FeedbackEntry:
    """What somebody says of an answer; fields and limits are those of ``FEEDBACK_INPUT_TYPES`` in the protocol.

    Raises:
        InvalidInput: a field is outside its limits.
    """

    request_id: str
    raw_prompt: str
    enhanced_prompt: str
    rating: int
    edited_prompt: str = ""
    comment: str = ""
    model_version: str = ""
    user: str = ""
    idempotency_key: str = ""

    def __post_init__(self) -> None:
        if type(self.rating) is not int or self.rating not in (1, -1):
            raise InvalidInput(f"rating must be 1 or -1, not {self.rating!r}")
        for name, limit in FEEDBACK_LIMITS.items():
            text = check_text(name, getattr(self, name), limit, may_be_blank=name not in NOT_BLANK)
            object.__setattr__(self, name, text)  # Triton gives UTF-8

    def has_secret(self) -> bool:
        """Whether a text holds a key, a token or a password."""
        texts = (self.raw_prompt, self.enhanced_prompt, self.edited_prompt, self.comment)
        return any(map(has_secret, texts))

    @property
    def key(self) -> str:
        """What makes it the same feedback when it comes again."""
        return self.idempotency_key or self.request_id


@dataclass(frozen=True, slots=True)
class FeedbackRecord:
    """Feedback as it is stored. ``created_at`` has its time zone, UTC."""

    feedback_id: str
    created_at: datetime
    feedback: FeedbackEntry

    def as_json(self) -> dict[str, Any]:
        """One flat object."""
        return {
            "feedback_id": self.feedback_id,
            "created_at": self.created_at.isoformat(timespec="milliseconds"),
            **asdict(self.feedback),
        }
