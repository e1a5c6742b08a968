"""What the engine counts."""

from collections.abc import Callable
from dataclasses import dataclass, field

FIRST_TOKEN_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass
class EngineMetrics:
    """Totals since the engine started, and what is going on now.

    Attributes:
        tokens: written, over all rows.
        steps: runs of the step graph.
        rows: rows over all steps; ``tokens / rows`` is what drafts gain.
        drafted, accepted: tokens proposed, and those that the model agreed with.
        prefills: requests that got their slots.
        refused: requests that found the queue full.
        cancelled, overdue: requests that ended so.
        fallbacks: texts that the raw prompt had to replace.
        step_seconds: spent in the step graph.
        first_token_seconds, first_tokens: sum and number, from arrival to the first token.
        first_token_buckets: how many took at most FIRST_TOKEN_BUCKETS_S.
        slots_used, waiting: now.
    """

    tokens: int = 0
    steps: int = 0
    rows: int = 0
    drafted: int = 0
    accepted: int = 0
    prefills: int = 0
    refused: int = 0
    cancelled: int = 0
    overdue: int = 0
    fallbacks: int = 0
    step_seconds: float = 0.0
    first_token_seconds: float = 0.0
    first_tokens: int = 0
    first_token_buckets: list[int] = field(default_factory=lambda: [0] * len(FIRST_TOKEN_BUCKETS_S))
    slots_used: int = 0
    waiting: int = 0

    def observe_first_token(self, seconds: float) -> None:
        """A request has its first token."""
        self.first_token_seconds += seconds
        self.first_tokens += 1
        for i, limit in enumerate(FIRST_TOKEN_BUCKETS_S):
            self.first_token_buckets[i] += seconds <= limit


Clock = Callable[[], float]
