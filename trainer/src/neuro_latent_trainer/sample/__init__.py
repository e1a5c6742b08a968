"""The samples that come with the trainer, written for this project: a few hundred prompts with complements (one in ten
has nothing to add), and 120 tasks with a good and a bad answer each, for responders.
"""

import csv
import io
import json
from collections.abc import Callable, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from neuro_latent_trainer.data import Record, read_records

FIELDS = ("raw_prompt", "complement", "failed_prompts", "source", "licence")

Row = dict[str, Any]

SAMPLE_TASKS = Path(__file__).with_name("sample_tasks.jsonl")
"""As ``neuro-latent evaluate --tasks`` and ``neuro-latent score --prompts`` read it."""


def sample_rows() -> list[Row]:
    """The sample's rows, each with :data:`FIELDS`."""
    text = files(__name__).joinpath("sample_prompts.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def sample_records() -> list[Record]:
    """The sample as :func:`~neuro_latent_trainer.data.read_records` reads it."""
    with as_file(files(__name__).joinpath("sample_prompts.jsonl")) as path:
        return list(read_records(path, strict=True).records)


def write_sample(path: Path) -> int:
    """Write the sample as .jsonl, .json, .csv or .parquet, as the name ends, and return the number of records.

    The folder is made where it is missing.

    Raises:
        ValueError: the name has another ending, or it is .parquet and pyarrow does not load.
        FileExistsError: the file exists.
        OSError: the file cannot be written.
    """
    path = Path(path)
    rows = sample_rows()
    content = encode_rows(rows, path.suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError:
        raise FileExistsError(f"{path} already exists; choose another name or delete it first") from None
    return len(rows)


def encode_rows(rows: Sequence[Row], suffix: str) -> bytes:
    """The bytes of a training data file that ``neuro_latent_trainer.data.read_records`` reads back.

    Raises:
        ValueError: ``suffix`` is not .jsonl, .json, .csv or .parquet, or pyarrow does not load for the latter.
    """
    encode = _ENCODERS.get(suffix.lower())
    if encode is None:
        raise ValueError(f"unknown file type {suffix!r}; known are {', '.join(_ENCODERS)}")
    return encode(rows)


def _jsonl(rows: Sequence[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _json(rows: Sequence[Row]) -> bytes:
    return (json.dumps(list(rows), ensure_ascii=False, indent=2) + "\n").encode()


def _csv(rows: Sequence[Row]) -> bytes:
    """CSV in which ``failed_prompts`` is a JSON list, the only way to fit several texts into one cell."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, FIELDS, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row | {"failed_prompts": json.dumps(row["failed_prompts"], ensure_ascii=False)} for row in rows)
    return text.getvalue().encode()


def _parquet(rows: Sequence[Row]) -> bytes:
    # Imported here: the other formats must work where pyarrow does not load, as pyarrow 26 beside NumPy 1.
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ValueError(f".parquet needs pyarrow, which does not load here ({error})") from error
    # Types are given: they could not be told from rows that all lack a field.
    kinds = {field: pa.list_(pa.string()) if field == "failed_prompts" else pa.string() for field in FIELDS}
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), pa.schema(kinds)), sink)
    return sink.getvalue()


_ENCODERS: dict[str, Callable[[Sequence[Row]], bytes]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
