"""The commands of this project, and which distribution brings each: for ``--help`` without an import."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class KnownCommand:
    """A command of another distribution. ``source`` is its folder in the project's repository."""

    summary: str
    distribution: str
    source: str


_TRAINER = ("neuro-latent-trainer", "./trainer")
_EXPORT = ("neuro-latent-export", "./export")
_SERVING = ("neuro-latent-serving", "./serving")
_BENCHMARKS = ("neuro-latent-benchmarks", "./benchmarks")

KNOWN_COMMANDS: Final = {
    "train": KnownCommand("Train an adapter on your prompts.", *_TRAINER),
    "evaluate": KnownCommand("Measure an adapter beside baselines.", *_TRAINER),
    "retrain": KnownCommand("Train an adapter on feedback, and promote it if it is no worse.", *_TRAINER),
    "export": KnownCommand("Write a Triton model repository from an adapter.", *_EXPORT),
    "serve": KnownCommand("Serve a model repository with Triton.", *_SERVING),
    "adapters": KnownCommand("Show, add and remove the adapters of a repository, also while it is served.", *_SERVING),
    "doctor": KnownCommand("Find what is wrong with an installation and a repository, and how to mend it.", *_SERVING),
    "gateway": KnownCommand("Serve the REST API and the page in front of a Triton elsewhere.", *_SERVING),
    "gateway-key": KnownCommand("Make an API key for the gateway.", *_SERVING),
    "bench": KnownCommand("Measure latency and throughput.", *_BENCHMARKS),
}

KNOWN_FEEDBACK_COMMANDS: Final = {
    "export": KnownCommand("Write stored feedback as JSON lines.", *_SERVING),
    "stats": KnownCommand("Count stored feedback.", *_SERVING),
    "purge": KnownCommand("Delete stored feedback of a user, or of an age.", *_SERVING),
}
"""What follows ``neuro-latent feedback``."""
