"""What the engine counts."""

from collections import deque
from dataclasses import dataclass, field


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
        unchanged: complements that were empty.
        withheld_by_gate, withheld_by_guard: texts that were not served.
        step_seconds: spent in the step graph.
        first_token_seconds: from arrival to the first token, of the latest requests; whoever reports them takes them
            out.
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
    unchanged: int = 0
    withheld_by_gate: int = 0
    withheld_by_guard: int = 0
    step_seconds: float = 0.0
    first_token_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=10_000))
    slots_used: int = 0
    waiting: int = 0
