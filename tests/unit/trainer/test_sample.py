"""The sample data set: what it promises of its records, and the files it writes."""

import re
import sys
from collections import Counter
from pathlib import Path

import pytest

from neuro_latent_trainer.data import read_records
from neuro_latent_trainer.sample import FIELDS, encode_rows, sample_records, sample_rows, write_sample

ROWS = sample_rows()
COMPLEMENTS = [row["complement"] for row in ROWS if row["complement"]]
SHARED_WORDS = 6


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
        assert 1 <= len(row["raw_prompt"].split()) <= 25, row
        assert 1 <= len(row["failed_prompts"]) <= 2, row
    for complement in COMPLEMENTS:
        assert 20 <= len(complement.split()) <= 60, complement
        assert re.search(r"[.!?]$", complement), complement


def test_one_in_ten_has_nothing_to_add() -> None:
    assert 0.08 <= 1 - len(COMPLEMENTS) / len(ROWS) <= 0.12


def test_no_text_comes_twice() -> None:
    assert len({row["raw_prompt"].lower() for row in ROWS}) == len(ROWS)
    assert len({complement.lower() for complement in COMPLEMENTS}) == len(COMPLEMENTS)
    for row in ROWS:
        texts = [row["raw_prompt"], row["complement"], *row["failed_prompts"]]
        assert len({text.lower() for text in texts}) == len(texts), row


def test_no_text_goes_on_with_the_raw_prompts_sentence() -> None:
    for row in ROWS:
        for text in (row["complement"], *row["failed_prompts"]):
            assert not text.startswith(row["raw_prompt"]), row


def test_the_complements_share_no_scaffolding() -> None:
    uses = Counter(run for complement in COMPLEMENTS for run in runs_of_words(complement))
    assert [run for run, count in uses.items() if count > 1] == []


def test_the_complements_open_in_many_ways() -> None:
    openings = Counter(complement.split()[0] for complement in COMPLEMENTS)
    assert len(openings) >= 80
    assert max(openings.values()) <= len(ROWS) // 5


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_each_format_holds_all_of_the_sample(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"sample{suffix}"
    assert write_sample(path) == len(ROWS)
    records = read_records(path, strict=True).records
    assert [(r.raw_prompt, r.target("complement"), r.failed_target("complement")) for r in records] == [
        (row["raw_prompt"], row["complement"], row["failed_prompts"][0]) for row in ROWS
    ]
    if suffix == ".jsonl":
        assert list(records) == sample_records()


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "sample.jsonl"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=r"sample\.jsonl already exists"):
        write_sample(path)
    assert path.read_text() == "mine"


def test_another_ending_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown file type '\.txt'; known are \.jsonl, \.json, \.csv, \.parquet"):
        write_sample(tmp_path / "new" / "sample.txt")
    assert not (tmp_path / "new").exists()


def test_without_pyarrow_only_parquet_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"\.parquet needs pyarrow, which does not load here"):
        encode_rows(ROWS, ".parquet")
    assert encode_rows(ROWS, ".jsonl")
