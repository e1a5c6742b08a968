"""Rows that tell or teach nothing: prompts that an adapter is judged by and was trained on, and pairs that repeat."""

from collections.abc import Collection, Sequence
from pathlib import Path

from neuro_latent_core.form import Form
from neuro_latent_trainer import adapter_folder
from neuro_latent_trainer.data import DataError, Record, key
from neuro_latent_trainer.settings import TrainConfig
from neuro_latent_trainer.sources import read_sources

SHOWN = 5
"""The most rows that :func:`check_unseen` names."""
ENOUGH_HELD_OUT = 20
"""With fewer held-out rows figures say little."""


class OverlapError(DataError):
    """An adapter would be judged by prompts that it was trained on."""


def trained_on(adapter: Path) -> frozenset[str]:
    """The :func:`~neuro_latent_trainer.data.key` of each raw prompt that an adapter (a folder or run), and those that
    it was started from, were trained on, as far as their runs are still there; feedback is not recorded.

    Raises:
        AdapterError, DataError: what is there cannot be read.
    """
    found: set[str] = set()
    places, known = [adapter], set[Path]()
    while places:
        folder = adapter_folder.locate(places.pop())
        if folder in known:
            continue
        known.add(folder)
        config = TrainConfig.from_dict(adapter_folder.read(folder).training.get("config", {}))
        if sources := read_sources(folder):
            records, _ = sources.records(config.validation_share, config.seed)
            found.update(key(record.raw_prompt) for record in records)
        if config.start_from and Path(config.start_from).is_dir():
            places.append(Path(config.start_from))
    return frozenset(found)


def check_unseen(prompts: Sequence[str], name: str, known: Collection[str], allowed: bool) -> str:
    """What to say of prompts that were trained on; "" where none was.

    Args:
        prompts: an adapter is to be judged by.
        name: of their file.
        known: keys of the prompts that were trained on.
        allowed: to go on nevertheless.

    Raises:
        OverlapError: there are some, and they are not allowed.
    """
    rows = [number for number, prompt in enumerate(prompts, 1) if key(prompt) in known]
    if not rows:
        return ""
    places = ", ".join(map(str, rows[:SHOWN])) + (", ..." if len(rows) > SHOWN else "")
    told = f"{len(rows)} of the {len(prompts)} prompts of {name} were trained on (record {places})"
    if not allowed:
        raise OverlapError(f"{told}: figures of them are too good. Take them out, or go on with --allow-overlap")
    return f"{told}: the figures are too good"


def describe_repeats(train: Sequence[Record], held_out: Sequence[Record], form: Form) -> list[str]:
    """What of the records teaches or tells nothing, a line each: pairs that stand there more than once, rewrites that
    change nothing, and held-out prompts that are trained on too."""
    pairs = [(key(r.raw_prompt), key(r.enhanced_prompt)) for r in train if r.enhanced_prompt is not None]
    trained_on, repeated = {raw for raw, _ in pairs}, len(pairs) - len(set(pairs))
    seen = sum(key(r.raw_prompt) in trained_on for r in held_out)
    equal = 0 if form == "complement" else sum(raw == enhanced for raw, enhanced in pairs)
    found = {
        f"{repeated} training pairs are there more than once": repeated,
        f"{equal} enhanced prompts are the raw prompt again, and teach to change nothing": equal,
        f"{seen} of {len(held_out)} held-out prompts are trained on too, so their loss is too good": seen,
    }
    return [line for line, count in found.items() if count]
