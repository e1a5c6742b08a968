"""The sample data set: what it promises of its records, and the files it writes."""

import re
import sys
from collections import Counter
from pathlib import Path

import pytest

from neuro_latent_trainer.data import read_records
from neuro_latent_trainer.sample import FIELDS, encode_rows, sample_rows, write_sample

ROWS = sample_rows()
SHARED_WORDS = 6
LITERALS = (
    r'"[^"]+"',
    r"`[^`]+`",
    r"https?://[^\s\"]*\w",
    r"\{\w+\}",
    r"[\w.+-]+@[\w-]+\.\w+",
    r"(?<!\w)[#v$\u20ac]?\d+(?:[.,:/x-]\d+)*%?",
)


def literals(text: str) -> list[str]:
    return [found for pattern in LITERALS for found in re.findall(pattern, text)]


def runs_of_words(text: str) -> set[str]:
    words = re.findall(r"[\w']+", text.lower())
    return {" ".join(words[i : i + SHARED_WORDS]) for i in range(len(words) - SHARED_WORDS + 1)}


def test_there_are_enough_records_and_each_has_every_field() -> None:
    assert len(ROWS) >= 320
    for row in ROWS:
        assert tuple(row) == FIELDS
        assert (row["source"], row["licence"]) == ("neuro-latent-sample", "Apache-2.0")


def test_lengths_are_those_of_prompts() -> None:
    for row in ROWS:
        assert 2 <= len(row["raw_prompt"].split()) <= 25, row
        assert 25 <= len(row["enhanced_prompt"].split()) <= 90, row
        assert 1 <= len(row["failed_prompts"]) <= 2, row


def test_no_text_comes_twice() -> None:
    for field in ("raw_prompt", "enhanced_prompt"):
        assert len({row[field].lower() for row in ROWS}) == len(ROWS)
    for row in ROWS:
        texts = [row["raw_prompt"], row["enhanced_prompt"], *row["failed_prompts"]]
        assert len({text.lower() for text in texts}) == len(texts), row


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["raw_prompt"][:40])
def test_the_enhanced_prompt_keeps_every_literal(row: dict[str, str]) -> None:
    for literal in literals(row["raw_prompt"]):
        assert re.search(rf"(?<!\w){re.escape(literal)}(?!\d)", row["enhanced_prompt"]), literal


def test_the_enhanced_prompts_share_no_scaffolding() -> None:
    uses = Counter(run for row in ROWS for run in runs_of_words(row["enhanced_prompt"]))
    assert [run for run, count in uses.items() if count > 1] == []


def test_the_enhanced_prompts_open_in_many_ways() -> None:
    openings = Counter(row["enhanced_prompt"].split()[0] for row in ROWS)
    assert len(openings) >= 80
    assert max(openings.values()) <= len(ROWS) // 5


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_each_format_holds_all_of_the_sample(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"sample{suffix}"
    assert write_sample(path) == len(ROWS)
    records = read_records(path, strict=True).records
    assert [(r.raw_prompt, r.enhanced_prompt, list(r.failed_prompts)) for r in records] == [
        (row["raw_prompt"], row["enhanced_prompt"], row["failed_prompts"]) for row in ROWS
    ]


def test_a_file_is_only_overwritten_on_request(tmp_path: Path) -> None:
    path = tmp_path / "sample.jsonl"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=r"sample\.jsonl already exists"):
        write_sample(path)
    assert path.read_text() == "mine"
    assert write_sample(path, force=True) == len(ROWS)
    assert len(read_records(path, strict=True).records) == len(ROWS)


def test_another_ending_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown file type '\.txt'; known are \.jsonl, \.json, \.csv, \.parquet"):
        write_sample(tmp_path / "new" / "sample.txt")
    assert not (tmp_path / "new").exists()


def test_without_pyarrow_only_parquet_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"\.parquet needs pyarrow, which does not load here"):
        encode_rows(ROWS, ".parquet")
    assert encode_rows(ROWS, ".jsonl")
