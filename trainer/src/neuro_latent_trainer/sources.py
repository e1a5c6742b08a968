"""What a training run was trained on: beside its checkpoints, and not in the adapter folder, which is given away.

``neuro-latent train`` writes the records themselves, ``neuro-latent retrain`` where its original data are.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from neuro_latent_trainer import files
from neuro_latent_trainer.data import DataError, Record, parse_columns, read_records, split_records, write_records

TRAIN_FILE, HELD_OUT_FILE = "train.jsonl", "val.jsonl"
FILE = "data.json"


@dataclass(frozen=True)
class Sources:
    """Data files, absolute, and how their columns are named; "" is none."""

    data_path: str
    val_path: str = ""
    columns: str = ""

    @classmethod
    def of(cls, data_path: Path, val_path: Path | None, columns: str) -> "Sources":
        """As the command line gives them."""
        return cls(str(data_path.absolute()), str(val_path.absolute()) if val_path else "", columns)

    def write(self, run: Path) -> None:
        """Put them into the folder of a run."""
        files.write(run / FILE, (json.dumps(asdict(self), indent=2) + "\n").encode())

    def records(self, validation_share: float, seed: int) -> tuple[list[Record], list[Record]]:
        """Training and held-out records, split as ``neuro-latent train`` splits them.

        Raises:
            DataError: a file is gone, or cannot be read.
            ValueError: a column is not there.
        """
        mapping = parse_columns(self.columns) if self.columns else None
        records = list(read_records(Path(self.data_path), mapping).records)
        if not self.val_path:
            return split_records(records, validation_share, seed)
        return records, list(read_records(Path(self.val_path), mapping).records)


def write_split(run: Path, train: Sequence[Record], held_out: Sequence[Record]) -> None:
    """Write what is trained on and what is held out into the folder of a run."""
    write_records(run / TRAIN_FILE, train)
    write_records(run / HELD_OUT_FILE, held_out)


def read_sources(adapter: Path) -> Sources | None:
    """The data of a training run, by its folder or the adapter folder in it; None where it is not recorded.

    Raises:
        DataError: the record cannot be read.
    """
    for folder in (adapter, adapter.parent):
        if (folder / TRAIN_FILE).is_file() and (folder / HELD_OUT_FILE).is_file():
            return Sources.of(folder / TRAIN_FILE, folder / HELD_OUT_FILE, "")
        if (folder / FILE).is_file():
            try:
                return Sources(**json.loads((folder / FILE).read_text(encoding="utf-8")))
            except (OSError, TypeError, ValueError) as error:
                raise DataError(f"{folder / FILE} cannot be read: {error}") from error
    return None
