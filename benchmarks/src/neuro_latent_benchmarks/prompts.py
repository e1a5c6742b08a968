"""The prompts that benchmarks ask: 128 raw prompts and complements of the trainer's sample data, in a fixed order."""

import json
from importlib.resources import files
from itertools import cycle, islice


def prompt_texts(count: int) -> list[str]:
    """The first ``count`` prompts; more than there are begin again."""
    texts = json.loads(files(__package__).joinpath("prompts.json").read_text(encoding="utf-8"))
    return list(islice(cycle(texts), count))
