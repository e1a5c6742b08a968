"""The comparison itself, and that every folder of snapshots has a test that makes them."""

from pathlib import Path

import pytest

from tests.unit.snapshots.conftest import HERE, UPDATE, compare_folder


def test_a_difference_is_shown_and_says_what_writes_the_files_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, made = tmp_path / "kind", {"same": "a\n", "deep/other": "a\nb\n"}
    monkeypatch.setenv(UPDATE, "1")
    compare_folder(folder, {**made, "stale": "x\n"})
    compare_folder(folder, made)
    monkeypatch.delenv(UPDATE)
    compare_folder(folder, made)
    (folder / "stale").write_text("gone\n")
    with pytest.raises(pytest.fail.Exception) as failure:
        compare_folder(folder, {"deep/other": "a\nc\n", "new": "n\n", "same": "a\n"})
    assert str(failure.value).splitlines() == [
        *("--- kind/deep/other", "+++ kind/deep/other", "@@ -1,2 +1,2 @@", " a", "-b", "+c"),
        *("--- /dev/null", "+++ kind/new", "@@ -0,0 +1 @@", "+n"),
        *("--- kind/stale", "+++ /dev/null", "@@ -1 +0,0 @@", "-gone"),
        *("", "If this is meant: make snapshots, read git's diff, commit it"),
    ]


def test_every_folder_has_a_test_that_makes_its_files() -> None:
    folders = {path.name for path in HERE.iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders == {path.stem.removeprefix("test_") for path in HERE.glob("test_*.py")} - {"snapshots"}
