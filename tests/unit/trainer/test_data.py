"""Reading of training data: every format, every kind of bad row, the split."""

import csv
import gzip
import json
import lzma
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro_latent_core.form import join
from neuro_latent_core.guard import is_blank
from neuro_latent_trainer.data import (
    BadRow,
    DataError,
    Record,
    describe_unused,
    parse_columns,
    read_records,
    render_bad_rows,
    split_records,
)
from neuro_latent_trainer.sample import encode_rows
from tests.cases import case

GOOD = {"raw_prompt": "sort a list", "enhanced_prompt": "Write a function that sorts a list."}
SAMPLE_ROW = {"raw_prompt": "sort a list", "complement": "In Go.", "failed_prompts": [], "source": "", "licence": ""}
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30).filter(
    lambda text: not is_blank(text)
)
rows = st.fixed_dictionaries(
    {
        "raw_prompt": texts,
        "complement": st.none() | st.just("") | texts.map(str.strip),
        "failed_prompts": st.lists(texts, max_size=3),
        "source": st.just("") | texts,
        "licence": st.just("") | texts,
    }
).filter(lambda row: row["complement"] is not None or row["failed_prompts"])


def write(path: Path, *lines: object) -> Path:
    """A file of these lines: text as it is, anything else as JSON."""
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def write_csv(path: Path, *rows: dict[str, str]) -> Path:
    """A file of these rows, as the csv module writes them."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def record(raw: str, line: int = 1) -> Record:
    return Record(raw, "better", (), "", "", line)


def only_reason(path: Path, columns: dict[str, str] | None = None) -> str:
    (bad,) = read_records(path, columns).bad_rows
    return bad.reason


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(written=st.lists(rows, min_size=1, max_size=5))
def test_every_format_gives_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, written: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("data") / f"train{suffix}"
    path.write_bytes(encode_rows(written, suffix))
    records = read_records(path, strict=True).records
    for row, found in zip(written, records, strict=True):
        raw, complement = row["raw_prompt"], row["complement"]
        if suffix == ".csv":  # which cannot tell "" from nothing
            complement = complement or ""
        known = complement is not None
        assert (found.raw_prompt, found.source, found.licence) == (raw, row["source"], row["licence"])
        assert found.enhanced_prompt == (join(raw, complement) if known else None)
        assert found.failed_prompts == tuple(
            join(raw, text) if known and not text.startswith(raw) else text for text in row["failed_prompts"]
        )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_ending_of_the_name_may_be_in_capitals(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"TRAIN{suffix.upper()}"
    path.write_bytes(encode_rows([SAMPLE_ROW], suffix))
    assert read_records(path).records[0].raw_prompt == "sort a list"


@pytest.mark.parametrize(("suffix", "module"), [(".gz", gzip), (".xz", lzma)])
def test_compressed_lines_are_read(tmp_path: Path, suffix: str, module: Any) -> None:
    path = tmp_path / f"train.jsonl{suffix}"
    path.write_bytes(module.compress(json.dumps(GOOD).encode()))
    assert len(read_records(path).records) == 1


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_damaged_compression_is_a_data_error(tmp_path: Path, suffix: str) -> None:
    content = (gzip if suffix == ".gz" else lzma).compress(json.dumps(GOOD).encode() * 1000)
    for number, damaged in enumerate((b"not compressed", content[: len(content) // 2], content[:20] + b"\xff" * 40)):
        path = tmp_path / f"{number}.jsonl{suffix}"
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="cannot be read"):
            read_records(path)


# The form --------------------------------------------------------------------------------------------------------


def test_a_complement_stands_behind_its_raw_prompt_and_its_failed_texts_do_too(tmp_path: Path) -> None:
    row = {"raw_prompt": "sort a list\n", "complement": " Of numbers. ", "failed_prompts": ["Of cats."], "kind": "code"}
    dataset = read_records(write(tmp_path / "train.jsonl", row, {"raw_prompt": "hi", "complement": ""}))
    first, second = dataset.records
    assert (first.enhanced_prompt, first.kind) == ("sort a list\n\n\nOf numbers.", "code")
    assert first.failed_prompts == ("sort a list\n\n\nOf cats.",)
    assert (first.target("complement"), first.failed_target("complement")) == ("Of numbers.", "Of cats.")
    assert first.target("rewrite") == first.enhanced_prompt
    assert (second.enhanced_prompt, second.target("complement"), second.failed_target("complement")) == ("hi", "", None)
    assert dataset.form == "complement"


def test_other_columns_may_hold_complements_and_kinds(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", {"q": "sort", "more": "In Rust.", "task": "code"})
    (found,) = read_records(path, parse_columns("raw=q,complement=more,kind=task")).records
    assert (found.target("complement"), found.kind) == ("In Rust.", "code")


@pytest.mark.parametrize(("rewrites", "form"), [(1, "complement"), (2, "rewrite")])
def test_a_file_whose_enhanced_prompts_begin_with_the_raw_ones_is_of_complements(
    tmp_path: Path, rewrites: int, form: str
) -> None:
    added = [{"raw_prompt": "sort", "enhanced_prompt": "sort\nIn Rust."}] * (10 - rewrites)
    dataset = read_records(write(tmp_path / "train.jsonl", *added, *[GOOD] * rewrites))
    assert dataset.form == form
    assert dataset.complement_share == pytest.approx(1 - rewrites / 10)


def test_records_without_anything_to_write_are_counted_with_the_reason() -> None:
    records = [record("a"), replace(record("b"), enhanced_prompt=None), replace(record("c"), enhanced_prompt="c")]
    assert describe_unused(records, "rewrite") == "not used: 1 have no enhanced prompt"
    assert describe_unused(records, "complement") == (
        "not used: 1 have no enhanced prompt; 1 change the raw prompt, which a complement does not"
    )
    assert describe_unused(records[2:], "complement") == ""


# The formats -----------------------------------------------------------------------------------------------------


def test_json_may_hold_the_list_under_data(tmp_path: Path) -> None:
    path = write(tmp_path / "train.json", {"data": [GOOD], "version": 1})
    assert read_records(path).records == (Record(**GOOD, failed_prompts=(), source="", licence="", line=1),)


def test_failed_prompts_may_be_one_text(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", GOOD | {"failed_prompts": "[no] list"})
    assert read_records(path).records[0].failed_prompts == ("[no] list",)


@pytest.mark.parametrize(
    ("cell", "failed"),
    [
        ("sort it", ("sort it",)),
        ('["a", "b"]', ("a", "b")),
        ("[sic] sort", ("[sic] sort",)),
        ("[1, 2]", ("[1, 2]",)),
        ("['a', 'b']", ("a", "b")),
        ("[]", ()),
        ("", ()),
    ],
)
def test_a_csv_cell_holds_one_failed_prompt_or_a_json_list(tmp_path: Path, cell: str, failed: tuple[str, ...]) -> None:
    quoted = cell.replace('"', '""')
    path = write(tmp_path / "train.csv", "raw_prompt,enhanced_prompt,failed_prompts", f'sort,Sort.,"{quoted}"')
    assert read_records(path).records[0].failed_prompts == failed


def test_a_csv_field_may_be_long_and_the_limit_of_others_stays(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    path = write(tmp_path / "train.csv", "raw_prompt,enhanced_prompt", "sort," + "x" * 300_000)
    assert len(read_records(path).records[0].enhanced_prompt or "") == 300_000
    assert csv.field_size_limit() == before


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    lines = read_records(write(tmp_path / "a.jsonl", GOOD, "", "  ", GOOD)).records
    assert [r.line for r in lines] == [1, 4]
    cells = read_records(write(tmp_path / "a.csv", "raw_prompt,enhanced_prompt", '"a\nb",c', "", "d,e")).records
    assert [r.line for r in cells] == [2, 5]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path: Path, name: str) -> None:
    text = {"a.jsonl": json.dumps(GOOD), "a.json": json.dumps([GOOD]), "a.csv": "raw_prompt,enhanced_prompt\na,b"}[name]
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    assert len(read_records(tmp_path / name, strict=True).records) == 1


def test_a_line_separator_inside_of_a_text_ends_no_line(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", '{"raw_prompt": "a\u2028b\x85", "enhanced_prompt": "c"}')
    assert read_records(path, strict=True).records[0].raw_prompt == "a\u2028b\x85"


def test_columns_are_renamed(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", "prompt,success,bad", "a,b,c")
    columns = parse_columns("raw=prompt, enhanced = success,failed=bad")
    assert read_records(path, columns).records == (Record("a", "b", ("c",), "", "", 2),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raw=a,better=b", "unknown key 'better'; known keys: raw, enhanced, failed"),
        ("raw", "'raw' is not of the form key=column"),
        ("raw=", "'raw=' is not of the form"),
        ("", "'' is not of the form"),
        ("raw=a,raw=b", "raw is given twice"),
        ("raw=a,enhanced=a", "two keys name one column"),
    ],
)
def test_a_wrong_column_mapping_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_columns(text)


def test_unknown_mapping_keys_are_refused_by_the_reader_too(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown key 'source'"):
        read_records(write(tmp_path / "a.jsonl", GOOD), {"source": "origin"})


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"train{suffix}"
    path.write_bytes(encode_rows([SAMPLE_ROW], suffix))
    with pytest.raises(ValueError, match=r"no column prompt; its columns are: raw_prompt, complement, failed_"):
        read_records(path, {"raw": "prompt"})


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("prompt,enhanced_prompt", "no column raw_prompt; its columns are: prompt, enhanced_prompt; name yours"),
        (
            "raw_prompt,answer",
            "no column enhanced_prompt, complement or failed_prompts; its columns are: raw_prompt",
        ),
        ("raw_prompt,raw_prompt", "two columns of the header have one name"),
        ('raw_prompt,"b"c', "train.csv:1: the header is not valid CSV"),
    ],
)
def test_a_file_without_the_usual_columns_says_how_to_name_them(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_records(write(tmp_path / "train.csv", header, "a,b"))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"raw_prompt": ', "not valid JSON (Expecting value at column 16)"),
        ("[1]", "expected a JSON object, found list"),
        pytest.param("[" * 100_000, "not valid JSON (nested too deeply)", id="deep"),
        ({"enhanced_prompt": "b"}, "raw_prompt is missing"),
        ({"raw_prompt": None, "enhanced_prompt": "b"}, "raw_prompt is missing"),
        ({"raw_prompt": " \n", "enhanced_prompt": "b"}, "raw_prompt is empty"),
        ({"raw_prompt": "\u200b\ufeff", "enhanced_prompt": "b"}, "raw_prompt is empty"),
        ({"raw_prompt": "\u2060\t\u3164", "complement": "b"}, "raw_prompt is empty"),
        ({"raw_prompt": "a", "enhanced_prompt": "\u200d \u00ad"}, "neither enhanced_prompt nor complement"),
        ({"raw_prompt": "a", "enhanced_prompt": "\u202e\u202c"}, "neither enhanced_prompt nor complement"),
        ({"raw_prompt": "a", "failed_prompts": "\u200b"}, "neither enhanced_prompt nor complement"),
        ({"raw_prompt": "a", "failed_prompts": ["b", "\u200b"]}, "failed_prompts item 2 is empty"),
        ({"raw_prompt": 7, "enhanced_prompt": "b"}, "raw_prompt must be text, found int"),
        ({"raw_prompt": ["a"], "enhanced_prompt": "b"}, "raw_prompt must be text, found list"),
        ({"raw_prompt": "a\0", "enhanced_prompt": "b"}, "raw_prompt holds a NUL character"),
        ({"raw_prompt": "a\ud800", "enhanced_prompt": "b"}, "raw_prompt holds characters that are not valid UTF-8"),
        ({"raw_prompt": "a"}, "neither enhanced_prompt nor complement nor failed_prompts has text"),
        ({"raw_prompt": "a", "enhanced_prompt": "", "failed_prompts": []}, "neither enhanced_prompt nor complement"),
        ({"raw_prompt": "a", "enhanced_prompt": {"text": "b"}}, "enhanced_prompt must be text, found dict"),
        ({"raw_prompt": "a", "complement": 3}, "complement must be text, found int"),
        (GOOD | {"complement": "Of numbers."}, "enhanced_prompt and complement are both given and do not agree"),
        ({"raw_prompt": "a", "failed_prompts": 3}, "failed_prompts must be text, found int"),
        ({"raw_prompt": "a", "failed_prompts": ["b", None]}, "failed_prompts item 2 must be text, found NoneType"),
        ({"raw_prompt": "a", "failed_prompts": ["b", " "]}, "failed_prompts item 2 is empty"),
        (GOOD | {"source": 1}, "source must be text, found int"),
        (GOOD | {"licence": "\udfff"}, "licence holds characters that are not valid UTF-8"),
    ],
)
def test_a_bad_row_is_kept_with_its_reason(tmp_path: Path, row: object, reason: str) -> None:
    path = write(tmp_path / "train.jsonl", GOOD, row)
    dataset = read_records(path)
    assert len(dataset.records) == 1
    (bad,) = dataset.bad_rows
    assert (bad.path, bad.line) == (path, 2)
    assert bad.reason.startswith(reason)


def test_reasons_name_the_columns_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"q": "a", "a": "b"}, {"q": "", "a": "b"})
    assert only_reason(path, {"raw": "q", "enhanced": "a"}) == "q is empty"


def test_bytes_that_are_not_utf8_make_only_their_row_bad(tmp_path: Path) -> None:
    lines = tmp_path / "a.jsonl"
    lines.write_bytes(json.dumps(GOOD).encode() + b'\n{"raw_prompt": "\xff", "enhanced_prompt": "b"}\n')
    assert only_reason(lines) == "not valid UTF-8"
    cells = tmp_path / "a.csv"
    cells.write_bytes(b"raw_prompt,enhanced_prompt\na,b\nc,\xff\n")
    assert only_reason(cells) == "enhanced_prompt holds characters that are not valid UTF-8"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a,b,c", "the number of fields is 3, in the header 2"),
        ("a", "the number of fields is 1,"),
        ('"a"x,b', "not valid CSV"),
        ('"', "not v"),
    ],
)
def test_a_broken_csv_line_is_a_bad_row(tmp_path: Path, line: str, reason: str) -> None:
    path = write(tmp_path / "a.csv", "raw_prompt,enhanced_prompt", "a,b", line)
    assert only_reason(path).startswith(reason)


# What a stray quotation mark swallows -------------------------------------------------------------------------------

HEADER = "raw_prompt,enhanced_prompt,kind"


def csv_rows(count: int) -> list[str]:
    return [f"plan trip {n},Plan the trip number {n}.,travel" for n in range(count)]


def lines_of(path: Path) -> tuple[list[int], list[int]]:
    """The lines of the records and of the bad rows: together, all rows of the file."""
    dataset = read_records(path)
    return [r.line for r in dataset.records], [b.line for b in dataset.bad_rows]


@pytest.mark.parametrize(
    ("changed", "lost"),
    [
        ({5: 'a,"B,c'}, range(7, 32)),  # never closed
        ({5: 'a,"An 8"" pan.,c', 9: 'a,"Another.,c'}, range(7, 12)),  # closed within another field
        ({5: 'a,"An 8"" pan.,c', 9: 'a,A pan of 9",c'}, range(7, 12)),  # closed before a delimiter: valid CSV
        ({5: '"an 8"" pan,B,c', 25: 'a",B,c'}, range(7, 28)),  # in the first column
        ({3: 'a,"B,c', 5: "a,,c", 10: 'a,B",c'}, range(5, 13)),
        ({3: 'a,"B"C,c', 20: '"a"b,B,c'}, [5, 22]),
        ({3: 'a,"B,c,d', 8: 'a,b",c,d'}, range(5, 11)),  # with another number of fields
        ({28: 'a,"B', 29: ""}, [30]),
    ],
)
def test_what_a_stray_quotation_mark_swallows_is_reported(
    tmp_path: Path, changed: dict[int, str], lost: list[int] | range
) -> None:
    rows = csv_rows(30)
    for index, line in changed.items():
        rows[index] = line
    good, bad = lines_of(write(tmp_path / "a.csv", HEADER, *rows))
    assert bad == list(lost)
    assert sorted(good + bad) == [n for n, line in enumerate(rows, start=2) if line]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_the_file_has_it(tmp_path: Path, end: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(end.join([HEADER, *csv_rows(4), 'a,"B,c', *csv_rows(3), ""]).encode())
    assert lines_of(path) == ([2, 3, 4, 5], [6, 7, 8, 9])


@pytest.mark.parametrize(
    "text",
    [
        "Write a poem.\n\nWith rhymes, please, and a title.\nFor a child.",
        "Dear Ann,\nthank you, all of you, for coming.\n\nYours, Bob\nCarl, Dora and Emil",
        "def f(a, b, c):\n    return a, b, c\n\nprint(f(1, 2, 3))\n",
        "one\n" * 20,
        "Name:\n- love, or loss, or both\n- hope, or fear, or none\n- joy, and pain, and rest\n- day, and night, too",
    ],
)
def test_a_text_may_have_lines(tmp_path: Path, text: str) -> None:
    path = write_csv(tmp_path / "a.csv", *[{"raw_prompt": "sort", "enhanced_prompt": text, "kind": "a"}] * 3)
    assert [r.enhanced_prompt for r in read_records(path, strict=True).records] == [text] * 3


@pytest.mark.parametrize(("name", "lost"), [("unclosed.csv", range(22, 42)), ("two_stray.csv", range(22, 33))])
def test_the_cases_of_stray_quotation_marks(name: str, lost: range) -> None:
    path = case(f"10-csv-stray-quote/{name}")
    good, bad = lines_of(path)
    assert bad == list(lost)
    assert len(good) + len(bad) == 40
    with pytest.raises(DataError, match="of 40 rows are bad"):
        read_records(path).check_lost()


def test_a_list_in_a_cell_is_no_rows(tmp_path: Path) -> None:
    text = "Write about:\n- love, loss\n- hope, fear\n- joy, pain\n- day, night"  # a comma a line, as the header has
    path = write_csv(tmp_path / "a.csv", {"raw_prompt": "poem", "enhanced_prompt": text})
    assert [r.enhanced_prompt for r in read_records(path, strict=True).records] == [text]


def test_a_bad_row_with_many_lines_is_one(tmp_path: Path) -> None:
    poem = "\n".join(f"line {n}, and more" for n in range(32))
    path = write(tmp_path / "a.csv", "raw_prompt,enhanced_prompt", *["a,b"] * 20, f'a,"{poem}"x')
    assert lines_of(path) == (list(range(2, 22)), [22])


@pytest.mark.parametrize(("bad", "goes_on"), [(0, True), (2, True), (3, False), (20, False)])
def test_a_file_of_which_much_is_lost_stops_a_run(tmp_path: Path, bad: int, goes_on: bool) -> None:
    dataset = read_records(write(tmp_path / "a.jsonl", *[GOOD] * 20, *["{"] * bad))
    if goes_on:
        dataset.check_lost()
    else:
        with pytest.raises(DataError, match=rf"a\.jsonl: {bad} of {20 + bad} rows are bad, and more than 10%"):
            dataset.check_lost()


# Columns ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("raw_prompt,enhanced_prompt,,", "a,b,,"),
        (",raw_prompt,,enhanced_prompt", "0,a,x,b"),
        ("raw_prompt,note,enhanced_prompt,note, note ", "a,1,b,2,3"),
        ("Unnamed,raw_prompt,enhanced_prompt,Unnamed,", "a,a,b,c,d"),
    ],
)
def test_columns_that_nobody_asks_for_may_be_empty_or_repeated(tmp_path: Path, header: str, line: str) -> None:
    (found,) = read_records(write(tmp_path / "a.csv", header, line), strict=True).records
    assert (found.raw_prompt, found.enhanced_prompt) == ("a", "b")


@pytest.mark.parametrize("name", ["raw_prompt", "enhanced_prompt", "failed_prompts", "complement", "kind"])
def test_columns_that_are_asked_for_may_not_be_repeated(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "a.csv", f"raw_prompt,enhanced_prompt,{name},{name},x,x", "a,b,c,d,e,f")
    with pytest.raises(DataError, match=f"two columns of the header have one name: {name}$"):
        read_records(path)
    renamed = write(tmp_path / "b.csv", "raw_prompt,enhanced_prompt,x,x", "a,b,e,f")
    with pytest.raises(DataError, match="have one name: x"):
        read_records(renamed, {"enhanced": "x"})


@pytest.mark.parametrize(("name", "count"), [("repeated_unused.csv", 1), ("trailing_commas.csv", 2)])
def test_the_cases_of_empty_and_repeated_columns(name: str, count: int) -> None:
    assert len(read_records(case(f"11-csv-empty-columns/{name}"), strict=True).records) == count


# Lists that were written as text ------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize(
    ("cell", "failed"),
    [
        ("['sort', 'sort it']", ("sort", "sort it")),
        (str(["it's", 'say "no"', "a\nb, é"]), ("it's", 'say "no"', "a\nb, é")),
        (" ['sort'] ", ("sort",)),
        ('["sort", "it"]', ("sort", "it")),
        ("['a'] or ['b'] is a list", ("['a'] or ['b'] is a list",)),
        ("[sic] sort", ("[sic] sort",)),
    ],
)
def test_a_list_written_as_text_is_a_list(tmp_path: Path, suffix: str, cell: str, failed: tuple[str, ...]) -> None:
    row = GOOD | {"failed_prompts": cell}
    path = write_csv(tmp_path / "a.csv", row) if suffix == ".csv" else write(tmp_path / "a.jsonl", row)
    assert read_records(path, strict=True).records[0].failed_prompts == failed


@pytest.mark.parametrize("cell", ["['a' 'b']", "['a', 'b]']x']", "['a', nan, 'b']", '["a", "b",]', "['a',\n 'b']"])
def test_what_only_looks_like_a_list_is_reported(tmp_path: Path, cell: str) -> None:
    path = write_csv(tmp_path / "a.csv", GOOD | {"failed_prompts": ""}, GOOD | {"failed_prompts": cell})
    assert only_reason(path).startswith("failed_prompts looks like a list and cannot be read as one")


def test_the_case_of_a_list_written_as_text() -> None:
    found = read_records(case("12-csv-list-repr/pairs.csv"), strict=True).records
    assert [r.failed_prompts for r in found] == [("poem", "do poem now"), ("go", "travel")]


# Encodings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_another_encoding_is_named_in_one_line(tmp_path: Path, name: str, encoding: str) -> None:
    text = {"a.jsonl": json.dumps(GOOD), "a.json": json.dumps([GOOD]), "a.csv": "raw_prompt,enhanced_prompt\na,b"}[name]
    (tmp_path / name).write_text(text, encoding=encoding)
    with pytest.raises(DataError, match=rf"{name}.*the text is {encoding[:6].upper()}; save it as UTF-8") as caught:
        read_records(tmp_path / name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.jsonl"])
def test_the_cases_of_utf16(name: str) -> None:
    with pytest.raises(DataError, match=r"the text is UTF-16; save it as UTF-8\)?$"):
        read_records(case(f"13-utf16/{name}"))


def test_the_case_of_texts_that_cannot_be_seen() -> None:
    with pytest.raises(DataError, match=r"(?s)^2 bad rows:.*:1: raw_prompt is empty.*:2: neither enhanced_prompt nor"):
        read_records(case("25-zero-width-training-text/pairs.jsonl"))


def test_items_of_a_json_list_must_be_objects(tmp_path: Path) -> None:
    assert only_reason(write(tmp_path / "a.json", [GOOD, "text"])) == "expected an object, found str"


def test_parquet_rows_are_checked_like_the_others(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    raw = pa.array([b"a", b"\xff", b"", None, b"e"], pa.binary()).view(pa.string())
    table = pa.table({"raw_prompt": raw, "enhanced_prompt": ["b"] * 5, "embedding": [[0.5]] * 5})
    pq.write_table(table, tmp_path / "a.parquet")
    dataset = read_records(tmp_path / "a.parquet")
    assert [r.line for r in dataset.records] == [1, 5]
    assert [str(b) for b in dataset.bad_rows] == [
        "a.parquet:2: not valid UTF-8",
        "a.parquet:3: raw_prompt is empty",
        "a.parquet:4: raw_prompt is missing",
    ]


def test_strict_reading_fails_at_bad_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", *[GOOD] * 16, GOOD | {"raw_prompt": ""})
    assert len(read_records(path).records) == 16
    with pytest.raises(DataError, match=r"1 bad row:\ntrain\.jsonl:17: raw_prompt is empty$"):
        read_records(path, strict=True)


def test_a_file_of_only_bad_rows_fails_and_lists_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)2 bad rows:.*a\.jsonl:1: not valid JSON.*a\.jsonl:2: not valid JSON"):
        read_records(write(tmp_path / "a.jsonl", "{", "}"))


def test_at_most_twenty_bad_rows_are_shown() -> None:
    text = render_bad_rows([BadRow(Path("d/train.jsonl"), n, "raw_prompt is empty") for n in range(1, 24)])
    lines = text.splitlines()
    assert lines[0] == "23 bad rows:"
    assert lines[1] == "train.jsonl:1: raw_prompt is empty"
    assert len(lines) == 22
    assert lines[-1] == "... and 3 more"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"x", r"unknown file type '\.txt'; known are \.jsonl, .*\.parquet"),
        ("a", b"x", "unknown file type ''"),
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl", b"\n \n", "holds no records"),
        ("a.csv", b"raw_prompt,enhanced_prompt\n", "holds no records"),
        ("a.json", b"[]", "holds no records"),
        ("a.json", b'{"rows": []}', "expected a list of objects or"),
        ("a.json", b'{"a": 1}\n{"a": 2}', r"a\.json:2: not valid JSON .*named \.jsonl"),
        pytest.param("a.json", b"[" * 100_000, "not valid JSON", id="deep"),
        ("a.json", b"\xff", "not valid JSON .*utf-8"),
        ("a.parquet", b"not parquet", "cannot be read"),
    ],
)
def test_an_unusable_file_says_why(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_records(path)


def test_a_missing_file_and_a_directory_say_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.jsonl does not exist"):
        read_records(tmp_path / "no.jsonl")
    with pytest.raises(DataError, match="is a directory"):
        read_records(tmp_path)


def test_without_pyarrow_only_parquet_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="needs pyarrow, which does not load here"):
        read_records(tmp_path / "a.parquet")
    assert read_records(write(tmp_path / "a.jsonl", GOOD)).records


@given(st.lists(texts, min_size=1, max_size=30), st.floats(0.01, 0.99), st.integers(0, 5))
def test_the_split_keeps_every_record_and_no_prompt_on_both_sides(raws: list[str], share: float, seed: int) -> None:
    records = [record(raw, line) for line, raw in enumerate(raws, start=1)]
    train, validation = split_records(records, share, seed)
    assert sorted([*train, *validation], key=lambda r: r.line) == records
    assert not {r.raw_prompt for r in train} & {r.raw_prompt for r in validation}
    if len(set(raws)) > 1:
        assert train
        assert validation


def test_the_split_depends_on_the_seed_but_not_on_the_order_or_on_other_records() -> None:
    records = [record(f"prompt {n}") for n in range(400)]
    train, validation = split_records(records, 0.25, seed=1)
    assert 60 < len(validation) < 140
    assert set(split_records(records[::-1], 0.25, seed=1)[1]) == set(validation)
    assert split_records(records, 0.25, seed=2)[1] != validation
    assert set(split_records(records[:200], 0.25, seed=1)[0]) <= set(train)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_the_validation_share_is_checked(share: float) -> None:
    with pytest.raises(ValueError, match="validation_share must be above 0 and below 1"):
        split_records([record("a")], share, seed=0)
