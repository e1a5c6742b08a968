"""The number of threads follows what the process may use, and can be set."""

import os
from pathlib import Path

import pytest

from neuro_latent_serving import threads


@pytest.fixture
def quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "cpu.max"
    monkeypatch.setattr(threads, "CGROUP_QUOTA", file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.delenv(threads.THREADS_VARIABLE, raising=False)
    return file


@pytest.mark.parametrize(
    ("text", "cores"),
    [("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("1600000 100000", 8), ("max 100000", 8)],
)
def test_a_containers_limit_counts(quota: Path, text: str, cores: int) -> None:
    quota.write_text(text + "\n")
    assert threads.available_cores() == threads.default_threads() == cores


def test_without_a_limit_every_core_of_the_process_counts(quota: Path) -> None:
    assert threads.available_cores() == 8


def test_the_variable_wins(quota: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(threads.THREADS_VARIABLE, "3")
    assert threads.default_threads() == 3


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_a_variable_that_is_no_number_is_refused(quota: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(threads.THREADS_VARIABLE, value)
    with pytest.raises(ValueError, match=f"NEURO_LATENT_THREADS must be a number above 0, not '{value}'"):
        threads.default_threads()
