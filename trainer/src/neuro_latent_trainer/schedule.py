"""The learning rate over a run."""

import math


def warmup_then_cosine(step: int, total_steps: int, warmup_share: float) -> float:
    """Linear warm-up over a share of the steps, then a cosine to 0; as a factor of the peak rate."""
    warmup = max(1, int(warmup_share * total_steps))
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, total_steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
