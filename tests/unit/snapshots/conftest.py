"""Comparing what a test makes with the files in the folder beside it."""

import difflib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

HERE = Path(__file__).parent
UPDATE = "UPDATE_SNAPSHOTS"
"""The environment variable with which the files are written instead of compared, as ``make snapshots`` does."""

Compare = Callable[[Mapping[str, str]], None]


@pytest.fixture
def compare(request: pytest.FixtureRequest) -> Compare:
    """Compares texts, by file name, with the whole folder of a test module: ``help/`` for ``test_help.py``."""
    return lambda made: compare_folder(HERE / request.path.stem.removeprefix("test_"), made)


def compare_folder(folder: Path, made: Mapping[str, str]) -> None:
    """Fail where a file of ``folder`` and its text in ``made`` differ, or one of the two is missing."""
    if os.environ.get(UPDATE):
        shutil.rmtree(folder, ignore_errors=True)
        for name, text in made.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        return
    stored = {str(p.relative_to(folder)): p.read_text(encoding="utf-8") for p in folder.rglob("*") if p.is_file()}
    if stored != made:
        diff = "".join(line for name in sorted({*stored, *made}) for line in _diff(folder.name, name, stored, made))
        pytest.fail(f"{diff}\nIf this is meant: make snapshots, read git's diff, commit it", pytrace=False)


def _diff(folder: str, name: str, stored: Mapping[str, str], made: Mapping[str, str]) -> list[str]:
    sides = [(texts.get(name, ""), f"{folder}/{name}" if name in texts else "/dev/null") for texts in (stored, made)]
    (before, old), (after, new) = sides
    return list(difflib.unified_diff(before.splitlines(True), after.splitlines(True), old, new))
