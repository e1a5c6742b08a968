"""Training data: records of JSON, JSON lines, CSV and Parquet files, and what is wrong with the other rows.

No row is dropped in silence: each row of the file is in ``Dataset.records`` or in ``Dataset.bad_rows``.
"""

import ast
import codecs
import csv
import gzip
import hashlib
import json
import lzma
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from neuro_latent_core.encoding import check_utf8, decode
from neuro_latent_core.form import Form, complement_of, join
from neuro_latent_core.guard import is_blank
from neuro_latent_trainer import files
from neuro_latent_trainer.errors import TrainerError

MAX_SHOWN = 20
"""The most bad rows that :func:`render_bad_rows` spells out."""

FEEDBACK = "feedback"
"""How the source of a record begins that users' feedback has made."""

MAX_LOST = 0.1
"""The largest share of a file's rows that may be bad: beyond it something is wrong with the file as a whole."""

MAX_CSV_FIELD = 2**31 - 1
"""Characters of one CSV field: the largest limit that the csv module takes on every platform."""


class DataError(TrainerError):
    """A data file that cannot be trained on: unreadable, empty, or with rows that are wrong."""


@dataclass(frozen=True)
class Record:
    """One raw prompt with what is known about it: an enhanced prompt, failed prompts, or both.

    Attributes:
        enhanced_prompt, failed_prompts: whole prompts, also where the file gives complements.
        kind: of request, "" where the file does not say; rows of one kind are each other's positives in phase 2, and
            the gate is fitted on kinds that are held out.
        line: of the file where the record starts; in .json and .parquet, its position, from 1.
    """

    raw_prompt: str
    enhanced_prompt: str | None
    failed_prompts: tuple[str, ...]
    source: str
    licence: str
    line: int
    kind: str = ""

    def target(self, form: Form) -> str | None:
        """What a model of this form has to write; None where the record does not say.

        In the complement form that is the rest of an enhanced prompt that begins with the raw prompt ("" is an answer:
        there is nothing to add).
        """
        if self.enhanced_prompt is None or form == "rewrite":
            return self.enhanced_prompt
        return complement_of(self.raw_prompt, self.enhanced_prompt)

    def failed_target(self, form: Form) -> str | None:
        """The first failed prompt as a model of this form would write it; None where there is none that it could."""
        if not self.failed_prompts or form == "rewrite":
            return next(iter(self.failed_prompts), None)
        return complement_of(self.raw_prompt, self.failed_prompts[0])


@dataclass(frozen=True)
class BadRow:
    """A row that is not a record, and why; ``line`` as in :class:`Record`."""

    path: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path.name}:{self.line}: {self.reason}"


@dataclass(frozen=True)
class Dataset:
    """The rows of one file: those to train on and the others, each in the order of the file.

    Attributes:
        has_complements: the file has a column of complements.
    """

    records: tuple[Record, ...]
    bad_rows: tuple[BadRow, ...]
    has_complements: bool = False

    def check_lost(self) -> None:
        """Check that most of the file was read.

        Raises:
            DataError: more than :data:`MAX_LOST` of the rows are bad.
        """
        lost, rows = len(self.bad_rows), len(self.records) + len(self.bad_rows)
        if lost > max(1, MAX_LOST * rows):
            raise DataError(
                f"{self.bad_rows[0].path}: {lost} of {rows} rows are bad, and more than {MAX_LOST:.0%} may not be; "
                "mend them or take them out of the file"
            )

    @property
    def complement_share(self) -> float:
        """The share of the enhanced prompts that begin with their raw prompt; 0 where there are none."""
        pairs = [record for record in self.records if record.enhanced_prompt is not None]
        return sum(record.target("complement") is not None for record in pairs) / max(len(pairs), 1)

    @property
    def form(self) -> Form:
        """The form that the file is made for: complement where it has such a column, or where nine in ten enhanced
        prompts begin with their raw prompt."""
        return "complement" if self.has_complements or self.complement_share >= 0.9 else "rewrite"


class _Columns(NamedTuple):
    """The file's names of what a record has."""

    raw: str = "raw_prompt"
    enhanced: str = "enhanced_prompt"
    failed: str = "failed_prompts"
    complement: str = "complement"
    kind: str = "kind"


_Row = tuple[int, dict[str, Any] | str]
"""A line number with the row, or with the reason why there is none; with 0 all columns of the file."""


def parse_columns(text: str) -> dict[str, str]:
    """Read a column mapping like ``"raw=prompt,enhanced=success,failed=failed"``.

    Raises:
        ValueError: a part is not ``key=column``, or a key is unknown or given twice.
    """
    columns: dict[str, str] = {}
    for part in text.split(","):
        role, _, column = (side.strip() for side in part.partition("="))
        if not role or not column:
            raise ValueError(
                f"columns: {part.strip()!r} is not of the form key=column; keys: {', '.join(_Columns._fields)}"
            )
        if role in columns:
            raise ValueError(f"columns: {role} is given twice")
        columns[role] = column
    _checked_columns(columns)
    return columns


def read_records(path: Path, columns: Mapping[str, str] | None = None, strict: bool = False) -> Dataset:
    """Read a .json, .jsonl (also .jsonl.gz and .jsonl.xz), .csv or .parquet file, as its name ends.

    Args:
        columns: the file's names of the columns ``raw``, ``enhanced``, ``complement``, ``failed`` and ``kind``; those
            not named keep ``raw_prompt``, ``enhanced_prompt``, ``complement``, ``failed_prompts`` and ``kind``. Where a
            row has a complement, its failed texts are complements too; an empty one says that there is nothing to add.
        strict: fail where there are bad rows instead of reporting them in the result.

    Raises:
        DataError: the file cannot be read, is empty, has no good row, or (``strict``) has a bad one.
        ValueError: ``columns`` names an unknown key or a column that the file does not have.
    """
    path = Path(path)
    names = _checked_columns(columns or {})
    present: dict[str, None] = {}
    records, bad_rows = [], []
    for line, row in _rows(path, names):
        try:
            if isinstance(row, str):
                raise ValueError(row)
            present |= dict.fromkeys(row)
            if line:
                records.append(_record(row, line, names))
        except ValueError as error:
            bad_rows.append(BadRow(path, line, str(error)))
    if not records and not bad_rows:
        raise DataError(f"{path} holds no records")
    if present:
        _check_present(path, list(present), names)
    if bad_rows and (strict or not records):
        raise DataError(render_bad_rows(bad_rows))
    return Dataset(tuple(records), tuple(bad_rows), names.complement in present)


def render_bad_rows(bad_rows: Sequence[BadRow]) -> str:
    """How many rows are bad, and the first :data:`MAX_SHOWN` of them, one a line."""
    lines = [f"{len(bad_rows)} bad {'row' if len(bad_rows) == 1 else 'rows'}:"]
    lines += [str(row) for row in bad_rows[:MAX_SHOWN]]
    if len(bad_rows) > MAX_SHOWN:
        lines.append(f"... and {len(bad_rows) - MAX_SHOWN} more")
    return "\n".join(lines)


def key(text: str) -> str:
    """Texts of one key are the same but for case and white space."""
    return " ".join(text.casefold().split())


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write records as JSON lines that :func:`read_records` takes."""
    names = ("raw_prompt", "enhanced_prompt", "failed_prompts", "kind", "source", "licence")
    rows = ({name: value for name in names if (value := getattr(record, name))} for record in records)
    files.write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def describe_unused(records: Sequence[Record], form: Form) -> str:
    """How many records have nothing to write in a form, and why, in one line; "" where all have."""
    unpaired = sum(record.enhanced_prompt is None for record in records)
    rewritten = sum(record.target(form) is None for record in records) - unpaired
    parts = [
        f"{unpaired} have no enhanced prompt" * bool(unpaired),
        f"{rewritten} change the raw prompt, which a complement does not" * bool(rewritten),
    ]
    return f"not used: {'; '.join(filter(None, parts))}" if unpaired or rewritten else ""


def split_records(records: Sequence[Record], validation_share: float, seed: int) -> tuple[list[Record], list[Record]]:
    """Split into (training, validation) by a hash of the raw prompt and the seed.

    A raw prompt keeps its side whatever other records there are, and all its records are on that side. The share is
    met on average; two distinct raw prompts or more leave no side empty.

    Raises:
        ValueError: ``validation_share`` is not between 0 and 1.
    """
    if not 0 < validation_share < 1:
        raise ValueError(f"validation_share must be above 0 and below 1, got {validation_share}")
    places = {r.raw_prompt: place(r.raw_prompt, seed) for r in records}
    held_out = {raw for raw, place in places.items() if place < validation_share}
    if len(places) > 1 and not held_out:
        held_out.add(min(places, key=lambda raw: places[raw]))
    if len(places) > 1 and len(held_out) == len(places):
        held_out.remove(max(places, key=lambda raw: places[raw]))
    train = [r for r in records if r.raw_prompt not in held_out]
    return train, [r for r in records if r.raw_prompt in held_out]


def sample_records(records: Sequence[Record], most: int) -> list[Record]:
    """At most ``most`` records, in their order where all are taken, else chosen by a hash of their raw prompts: the
    first rows of a file are often all of one kind."""
    if len(records) <= most:
        return list(records)
    return sorted(records, key=lambda r: hashlib.sha256(r.raw_prompt.encode()).digest())[:most]


def place(raw_prompt: str, seed: int) -> float:
    """A number in [0, 1), uniform over prompts: below a share, a prompt is held out."""
    digest = hashlib.sha256(f"{seed}\n{raw_prompt}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _checked_columns(columns: Mapping[str, str]) -> _Columns:
    if unknown := [role for role in columns if role not in _Columns._fields]:
        raise ValueError(f"columns: unknown key {unknown[0]!r}; known keys: {', '.join(_Columns._fields)}")
    names = _Columns(**columns)
    if len(set(names)) < len(names):
        listing = ", ".join(f"{role}={column}" for role, column in names._asdict().items())
        raise ValueError(f"columns: two keys name one column ({listing})")
    return names


def _check_present(path: Path, present: Sequence[str], names: _Columns) -> None:
    listing = f"its columns are: {', '.join(filter(None, present))}"
    if absent := sorted({*names}.difference(_Columns(), present)):
        raise ValueError(f"{path} has no column {' and no column '.join(absent)}; {listing}")
    hint = "name yours with columns raw=...,enhanced=... (or complement=...),failed=..."
    if names.raw not in present:
        raise DataError(f"{path} has no column {names.raw}; {listing}; {hint}")
    if not {names.enhanced, names.complement, names.failed} & set(present):
        raise DataError(
            f"{path} has no column {names.enhanced}, {names.complement} or {names.failed}; {listing}; {hint}"
        )


def _rows(path: Path, names: _Columns) -> Iterator[_Row]:
    if not path.exists():
        raise DataError(f"{path} does not exist")
    if not path.is_file():
        raise DataError(f"{path} is a {'directory' if path.is_dir() else 'special file'}, not a data file")
    reader = next((r for suffix, r in _READERS.items() if path.name.lower().endswith(suffix)), None)
    if reader is None:
        raise DataError(f"{path}: unknown file type {path.suffix!r}; known are {', '.join(_READERS)}")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty")
    try:
        yield from reader(path, names)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _record(row: dict[str, Any], line: int, names: _Columns) -> Record:
    """The record of one row; raises ValueError with the reason if it is a bad one."""
    raw = _text(row, names.raw)
    if raw is None:
        raise ValueError(f"{names.raw} is {'missing' if row.get(names.raw) is None else 'empty'}")
    enhanced = _text(row, names.enhanced)
    failed = _failed(row, names.failed)
    complement = _text(row, names.complement)
    if complement or (row.get(names.complement) is not None and enhanced is None):
        whole = join(raw, (complement or "").strip())
        if enhanced is not None and enhanced != whole:
            raise ValueError(f"{names.enhanced} and {names.complement} are both given and do not agree")
        enhanced = whole
        failed = tuple(text if text.startswith(raw) else join(raw, text) for text in failed)
    if enhanced is None and not failed:
        raise ValueError(f"neither {names.enhanced} nor {names.complement} nor {names.failed} has text")
    source, licence, kind = (_text(row, name) or "" for name in ("source", "licence", names.kind))
    return Record(raw, enhanced, failed, source, licence, line, kind)


def _text(row: Mapping[str, Any], column: str) -> str | None:
    """The text of a column, None where it is absent or nothing of it can be seen."""
    value = row.get(column)
    if value is None:
        return None
    check_text(value, column)
    return None if is_blank(value) else value


def _failed(row: Mapping[str, Any], column: str) -> tuple[str, ...]:
    """The failed prompts: a list, a list written as text (as a CSV cell must have it), or one text."""
    value = row.get(column)
    if not isinstance(value, list):
        text = _text(row, column)
        if text is None:
            return ()
        value = _listed(text, column)
    for number, item in enumerate(value, start=1):
        check_text(item, f"{column} item {number}")
        if is_blank(item):
            raise ValueError(f"{column} item {number} is empty")
    return tuple(value)


_LIKE_A_LIST = re.compile(r"""\s*\[\s*(['"].*['"]\s*,?\s*)?\]\s*""", re.DOTALL)


def _listed(text: str, column: str) -> list[str]:
    """The items of a text that is a JSON list of texts, or what Python (and pandas) write for one; else the text.

    Raises:
        ValueError: it looks like a list of texts and is none of these.
    """
    if not _LIKE_A_LIST.fullmatch(text):
        return [text]
    for read in (json.loads, ast.literal_eval):
        try:
            items = read(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        # Python joins neighbours: NumPy's ['a' 'b'] would be one text. So only Python's own writing of a list counts.
        if isinstance(items, list) and (read is json.loads or repr(items) == text.strip()):
            return items
    raise ValueError(f'{column} looks like a list and cannot be read as one; write it as JSON: ["one", "two"]')


def check_text(value: object, name: str) -> None:
    """Raise ValueError unless a value is text that every tokenizer takes."""
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, found {type(value).__name__}")
    if "\0" in value:
        raise ValueError(f"{name} holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds characters that are not valid UTF-8") from None


def _read_json(path: Path, names: _Columns) -> Iterable[_Row]:
    try:
        content = json.loads(decode(path.read_bytes()))
    except json.JSONDecodeError as error:
        hint = "; a file of one object a line is named .jsonl" if error.msg == "Extra data" else ""
        raise DataError(f"{path}:{error.lineno}: not valid JSON ({error.msg} at column {error.colno}){hint}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({error})") from None
    items = content.get("data") if isinstance(content, dict) else content
    if not isinstance(items, list):
        raise DataError(f'{path}: expected a list of objects or {{"data": [...]}}')
    rows = (item if isinstance(item, dict) else f"expected an object, found {type(item).__name__}" for item in items)
    return enumerate(rows, start=1)


def _read_jsonl(path: Path, names: _Columns) -> Iterator[_Row]:
    opened: Any = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix.lower(), open)
    with opened(path, "rb") as file:
        yield from json_lines(file)


def json_lines(file: BinaryIO) -> Iterator[_Row]:
    """The objects of a file of JSON lines.

    Raises:
        ValueError: the file is in another encoding.
    """
    # Lines of bytes: text lines would also end at the characters like U+2028 that JSON allows inside of strings.
    for number, line in enumerate(file, start=1):
        if number == 1:
            check_utf8(line[:4])
            line = line.removeprefix(codecs.BOM_UTF8)
        if line.strip():
            yield number, _json_object(line)


def _json_object(line: bytes) -> dict[str, Any] | str:
    """The object, or why there is none, without any of the line's text."""
    try:
        row = json.loads(line.rstrip(b"\r\n").decode())
    except UnicodeDecodeError:
        return "not valid UTF-8"
    except RecursionError:
        return "not valid JSON (nested too deeply)"
    except json.JSONDecodeError as error:
        return f"not valid JSON ({error.msg} at column {error.colno})"
    except ValueError as error:  # a number of too many digits
        return str(error)
    return row if isinstance(row, dict) else f"expected a JSON object, found {type(row).__name__}"


def _read_csv(path: Path, names: _Columns) -> Iterator[_Row]:
    with path.open("rb") as file:
        check_utf8(file.read(4))
    limit = csv.field_size_limit(MAX_CSV_FIELD)
    try:
        # Bytes that are not UTF-8 become lone surrogates, which check_text reports with their row.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            yield from _csv_rows(path, file, names)
    finally:
        csv.field_size_limit(limit)


def _csv_rows(path: Path, file: Iterable[str], names: _Columns) -> Iterator[_Row]:
    lines: list[str] = []  # of the row at hand: a quoted field may have several

    def noted() -> Iterator[str]:
        for line in file:
            lines.append(line)
            yield line

    reader = csv.reader(noted(), strict=True)
    header: list[str] | None = None
    spaced = False
    while True:
        start = reader.line_num + 1
        lines.clear()
        problem = ""
        cells: list[str] | None = []
        try:
            cells = next(reader, None)
        except csv.Error as error:
            problem = f"not valid CSV ({error})"
        if cells is None:
            return
        if header is None:
            if problem:
                raise DataError(f"{path}:{start}: the header is {problem}")
            header = _csv_header(path, cells, names) if cells else None
            spaced = any(cell[:1].isspace() for cell in cells[1:])
            continue
        inner = [(number, line) for number, line in enumerate(lines[1:], start=start + 1) if line.strip()]
        rows_inside = sum(_is_row(line, len(header), spaced=spaced) for _, line in inner)
        if cells and len(cells) != len(header):
            problem = f"the number of fields is {len(cells)}, in the header {len(header)}"
        elif rows_inside == len(lines) - 1 > 2:
            problem = problem or "each of its lines is a row by itself"
        if problem:
            yield start, problem
            for number, _ in inner if rows_inside else ():
                yield number, f"within a quoted field of line {start}; is a quotation mark missing or too many?"
        elif cells:
            yield start, dict(zip(header, cells, strict=True))


def _is_row(line: str, fields: int, *, spaced: bool) -> bool:
    """Whether a line of a quoted field would be a row by itself, as those that a stray quotation mark has swallowed.

    Prose has spaces behind its commas; ``spaced`` says that the file has them between its cells too.
    """
    cells = next(csv.reader([line]), [])
    if len(cells) != fields or sum(map(bool, map(str.strip, cells))) < 2:
        return False
    return spaced or not any(cell[:1].isspace() for cell in cells[1:])


def _csv_header(path: Path, cells: list[str], names: _Columns) -> list[str]:
    header = [cell.strip() for cell in cells]
    if repeated := [name for name, times in Counter(header).items() if times > 1 and name in names]:
        raise DataError(f"{path}: two columns of the header have one name: {', '.join(repeated)}")
    return header


def _read_parquet(path: Path, names: _Columns) -> Iterator[_Row]:
    # Imported here: the other formats must work where pyarrow does not load, as pyarrow 26 beside NumPy 1.
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError(f"{path}: .parquet needs pyarrow, which does not load here ({error})") from error
    try:
        with pq.ParquetFile(path) as file:
            present = file.schema_arrow.names
            yield 0, dict.fromkeys(present)
            wanted = [column for column in present if column in {*names, "source", "licence"}]
            rows = (row for batch in file.iter_batches(columns=wanted) for row in _parquet_rows(batch))
            yield from enumerate(rows, start=1)
    except pa.ArrowException as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _parquet_rows(batch: Any) -> Iterator[dict[str, Any] | str]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            yield "not valid UTF-8"
            return
        # One text fails the whole batch: take the rows one by one to find it.
        for number in range(batch.num_rows):
            yield from _parquet_rows(batch.slice(number, 1))


_READERS: dict[str, Callable[[Path, _Columns], Iterable[_Row]]] = {
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl,
    ".jsonl.xz": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
