"""The table of ``make chaos``: what it counts, and what makes it fail."""

from collections import Counter
from pathlib import Path

import httpx2
import pytest

from neuro_latent_client import DeadlineError, InvalidRequestError, ServerUnavailableError
from tests.chaos.load import HttpError, Sent, counted, judged, seconds_down
from tests.chaos.outcome import BEGIN, END, Outcome, table, write


def raises(error: Exception) -> str:
    raise error


@pytest.mark.parametrize(
    ("error", "how"),
    [
        (DeadlineError("late"), "hang"),
        (httpx2.ReadTimeout("late"), "hang"),
        (ServerUnavailableError("down"), "ServerUnavailableError"),
        (HttpError("503"), "503"),
        (httpx2.ConnectError("down"), "connection refused or lost"),
        (InvalidRequestError("not so"), "wrong"),
        (RuntimeError("x"), "wrong"),
    ],
)
def test_how_a_request_ends(error: Exception, how: str) -> None:
    assert judged(lambda: raises(error), "text")[0] == how


def test_another_text_is_wrong() -> None:
    assert judged(lambda: "text", "text") == ("", "")
    assert judged(lambda: "test", "text")[0] == "wrong"


def test_requests_are_counted_and_the_time_without_an_answer_is_told() -> None:
    sent = [
        Sent(0, 1, ""),
        Sent(1, 2, "503"),
        Sent(1, 4, "hang"),
        Sent(4, 5, ""),
        Sent(5, 5.1, "wrong"),
        Sent(5, 7, ""),
    ]
    assert counted(sent) == (Counter({"503": 1}), 1, 1)
    assert seconds_down(sent, 0, 7) == 4
    assert seconds_down(sent[:3], 0, 6) == 5, "nothing was answered until the end"
    assert seconds_down(sent[1:], 0, 7) == 5, "nothing was answered before"
    assert seconds_down([sent[0], sent[-1]], 0, 7) == 0
    feedback = [Sent(1, 2, "503", key="x")]
    assert seconds_down([sent[0], *feedback, sent[-1]], 0, 7) == 0, "prompts were answered"


@pytest.mark.parametrize("bad", [{"hangs": 1}, {"wrong": 1}, {"lost": 1}, {"leaks": ("a file",)}, {"trouble": "gone"}])
def test_what_must_not_happen_fails_the_run(bad: dict) -> None:
    assert not Outcome("kill", errors=Counter({"503": 9}), down_s=9).is_bad
    assert Outcome("kill", **bad).is_bad


def test_the_table_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    text = table([Outcome("kill", 2, 9, Counter({"503": 3})), Outcome("full", skipped="not here")])
    write(page, text)
    write(page, text)
    assert page.read_text() == f"before\n{BEGIN}\n{text}\n{END}\nafter\n"
    assert "| kill | 2 | 9 | 3 |" in text
    assert "- kill: 3 503" in text
    assert "- full: skipped: not here" in text
    columns = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(columns) == 1
    page.write_text("no marks")
    with pytest.raises(ValueError, match="has no lines"):
        write(page, text)
