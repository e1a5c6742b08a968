"""The store: what is answered is on disk, a key counts once, and what is purged is gone."""

import multiprocessing
import os
import random
import shutil
import sqlite3
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from sqlalchemy import event

from neuro_latent_core.errors import InvalidInput
from neuro_latent_core.protocol import FEEDBACK_INPUT_TYPES, FEEDBACK_LIMITS
from neuro_latent_serving.errors import StoreDamaged, StoreUnavailable, StoreUnwritable
from neuro_latent_serving.feedback import FeedbackEntry, FeedbackStore
from neuro_latent_serving.feedback import feedback_store as stores
from neuro_latent_serving.feedback.feedback_store import _TABLE, damage

pytestmark = pytest.mark.slow

KILLS = 50
GOOD = FeedbackEntry("r1", "Create a function", "Write a Python function that …", 1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "new" / "feedback.sqlite3"


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, file: Path) -> Iterator[FeedbackStore]:
    url = f"sqlite:///{file}"
    if request.param == "postgresql":
        url = os.environ.get("NEURO_LATENT_TEST_POSTGRESQL", "")
        if not url:
            pytest.skip("NEURO_LATENT_TEST_POSTGRESQL names no database to test with")
    made = FeedbackStore(url)
    made.purge(older_than=datetime.now(UTC) + timedelta(days=1))
    yield made
    made.close()


def test_what_is_added_is_there(store: FeedbackStore) -> None:
    full = FeedbackEntry("r2", "raw ✓", "enhanced", -1, "edited", "a comment", "mini-1", "ann", "key")
    before = datetime.now(UTC)
    ids = [store.add(GOOD).feedback_id, store.add(full).feedback_id]
    rows = list(store.records())
    assert [row.feedback_id for row in rows] == ids
    assert [row.feedback for row in rows] == [GOOD, full]
    assert before <= rows[0].created_at <= rows[1].created_at <= datetime.now(UTC)


def test_a_key_is_stored_once(store: FeedbackStore) -> None:
    first, again = store.add(GOOD), store.add(replace(GOOD, rating=-1))
    assert (first.created, again.created) == (True, False)
    assert first.feedback_id == again.feedback_id
    other = store.add(replace(GOOD, idempotency_key="edited"))
    assert other.created
    assert [row.feedback.rating for row in store.records()] == [1, 1]


def test_of_many_writers_with_one_key_one_creates(store: FeedbackStore) -> None:
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(store.add(GOOD))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.created for answer in answers) == [False] * 7 + [True]
    assert len({answer.feedback_id for answer in answers}) == 1


def test_records_and_stats_by_user_version_and_time(store: FeedbackStore) -> None:
    store.add(replace(GOOD, request_id="a", user="ann", model_version="v1"))
    store.add(replace(GOOD, request_id="b", user="bob", model_version="v2", rating=-1, edited_prompt="better"))
    store.add(replace(GOOD, request_id="c", model_version="v2", comment="why"))
    middle = list(store.records())[1].created_at
    assert [row.feedback.request_id for row in store.records(since=middle)] == ["b", "c"]
    assert [row.feedback.request_id for row in store.records(user="ann")] == ["a"]
    assert [row.feedback.request_id for row in store.records(model_version="v2")] == ["b", "c"]
    stats = store.stats()
    assert (stats.total, stats.up, stats.down, stats.edited, stats.commented, stats.users) == (3, 2, 1, 1, 1, 2)
    assert stats.by_model_version == {"v1": 1, "v2": 2}
    assert stats.first is not None
    assert stats.last is not None
    assert stats.first < middle < stats.last


def test_an_empty_store_has_stats(store: FeedbackStore) -> None:
    stats = store.stats()
    assert (stats.total, stats.by_model_version, stats.first, stats.last) == (0, {}, None, None)


def test_purge_takes_what_is_meant(store: FeedbackStore) -> None:
    for key, user in (("a", "ann"), ("b", "bob"), ("c", "ann")):
        store.add(replace(GOOD, request_id=key, user=user))
    middle = list(store.records())[1].created_at
    assert store.purge(user="ann", older_than=middle) == 1
    assert [row.feedback.request_id for row in store.records()] == ["b", "c"]
    assert store.purge(user="bob") == 1
    assert store.purge(older_than=datetime.now(UTC)) == 1
    assert store.add(replace(GOOD, request_id="a")).created
    with pytest.raises(ValueError, match="needs a user, or a time"):
        store.purge()


def test_what_is_purged_is_not_in_the_files(file: Path) -> None:
    store = FeedbackStore(f"sqlite:///{file}")
    for number in range(50):
        store.add(replace(GOOD, request_id=str(number), user="ann", comment=f"very private {number}"))
    holding = [path for path in file.parent.iterdir() if b"very private" in path.read_bytes()]
    assert holding
    store.purge(user="ann")
    assert not [path for path in file.parent.iterdir() if b"very private" in path.read_bytes()]
    store.close()


@pytest.mark.parametrize("name", FEEDBACK_LIMITS)
def test_the_limit_of_each_text(name: str) -> None:
    limit = FEEDBACK_LIMITS[name]
    assert getattr(replace(GOOD, **{name: "é" * limit}), name) == "é" * limit
    with pytest.raises(InvalidInput, match=f"{name} has {limit + 1} characters; the limit is {limit}"):
        replace(GOOD, **{name: "é" * (limit + 1)})
    with pytest.raises(InvalidInput, match=f"{name} holds a NUL"):
        replace(GOOD, **{name: "a\0"})
    with pytest.raises(InvalidInput, match=f"{name} is not valid UTF-8"):
        replace(GOOD, **{name: b"\xff"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rating": 0}, "rating must be 1 or -1, not 0"),
        ({"rating": True}, "rating must be 1 or -1, not True"),
        ({"rating": "1"}, "rating must be 1 or -1, not '1'"),
        ({"request_id": ""}, "request_id is empty"),
        ({"raw_prompt": " \n"}, "raw_prompt holds only white space"),
    ],
)
def test_other_bad_values(change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        replace(GOOD, **change)


def test_fields_are_those_of_the_protocol() -> None:
    assert list(FeedbackEntry.__dataclass_fields__) == list(FEEDBACK_INPUT_TYPES)


@pytest.mark.parametrize("url", ["nowhere", "no_such_database://x/y", "postgresql+no_such_driver://x/y"])
def test_a_url_that_cannot_be_used(url: str) -> None:
    with pytest.raises(ValueError, match="the feedback cannot be stored"):
        FeedbackStore(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+asyncpgx://bob:SECRET@db/x",
        "postgresql+asyncpgx://db/x?user=bob&password=SECRET",
        "postgresql://bob:SECRET",  # a port, to SQLAlchemy
        "bob:SECRET@db/x",
    ],
)
def test_no_error_tells_the_password(url: str) -> None:
    with pytest.raises(ValueError, match="the feedback cannot be stored") as caught:
        FeedbackStore(url)
    assert "SECRET" not in "".join(traceback.format_exception(caught.value))


def below_a_file(folder: Path) -> str:
    (folder / "file").touch()
    return "file/feedback.sqlite3"


def a_folder(folder: Path) -> str:
    (folder / "feedback.sqlite3").mkdir()
    return "feedback.sqlite3"


def a_loop_of_links(folder: Path) -> str:
    (folder / "loop").symlink_to(folder / "loop")
    return "loop/feedback.sqlite3"


def too_long_a_name(folder: Path) -> str:
    return "x" * 300


@pytest.mark.parametrize("place", [below_a_file, a_folder, a_loop_of_links, too_long_a_name])
def test_a_database_that_can_never_be_written_is_no_try_again(tmp_path: Path, place: Callable[[Path], str]) -> None:
    store = FeedbackStore(f"sqlite:///{tmp_path}/{place(tmp_path)}")
    for use in (lambda: store.add(GOOD), store.check):
        with pytest.raises(
            StoreUnwritable, match="the database of the feedback is unavailable: it cannot be"
        ) as caught:
            use()
        assert "again" not in str(caught.value)
        assert str(tmp_path) not in str(caught.value), "the reason is the operator's"


def test_a_database_that_only_reads_cannot_be_written(file: Path) -> None:
    store = FeedbackStore(f"sqlite:///{file}")
    store.add(GOOD)
    event.listen(store._engine, "connect", lambda connection, _: connection.execute("PRAGMA query_only=ON"))
    for use in (lambda: store.add(replace(GOOD, request_id="r2")), store.check):
        with pytest.raises(StoreUnwritable):
            use()
    assert store.stats().total == 1


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("begin", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_what_waits_for_a_lock_waits_side_by_side(
    file: Path, monkeypatch: pytest.MonkeyPatch, count: int, begin: str, journal: str
) -> None:
    monkeypatch.setattr(stores, "TIMEOUT_S", 1)
    FeedbackStore(f"sqlite:///{file}").add(GOOD)
    store = FeedbackStore(f"sqlite:///{file}")

    def add(number: int) -> float:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="try again later"):
            store.add(replace(GOOD, request_id=f"new {number}"))
        return time.monotonic() - began

    with closing(sqlite3.connect(file, isolation_level=None)) as holder:
        holder.execute(f"PRAGMA journal_mode={journal}")
        holder.execute(begin)
        with ThreadPoolExecutor(count) as threads:
            waited = list(threads.map(add, range(count)))
    assert max(waited) < 2.5
    assert store.add(replace(GOOD, request_id="after")).created


@pytest.mark.parametrize("how", ["deleted", "its folder deleted", "replaced", "emptied"])
def test_what_is_added_after_the_file_was_lost_is_in_a_file(
    file: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = FeedbackStore(f"sqlite:///{file}")
    store.add(GOOD)
    if how == "its folder deleted":
        shutil.rmtree(file.parent)
    elif how == "deleted":
        file.unlink()
    elif how == "emptied":
        file.write_bytes(b"")
    else:
        (file.parent / "other").touch()
        (file.parent / "other").replace(file)
    for number in range(5):
        assert store.add(replace(GOOD, request_id=f"later {number}")).created
    store.close()
    assert [row.feedback.request_id for row in FeedbackStore(f"sqlite:///{file}").records()] == [
        f"later {number}" for number in range(5)
    ]
    assert ("deleted or replaced" in caplog.text) == (how != "emptied")


def test_a_file_that_is_lost_while_it_is_written_fails_the_feedback(file: Path) -> None:
    store = FeedbackStore(f"sqlite:///{file}")
    store.add(GOOD)
    event.listen(store._engine, "before_cursor_execute", lambda *_: file.unlink(missing_ok=True))
    with pytest.raises(StoreUnavailable, match="try again"):
        store.add(replace(GOOD, request_id="lost"))


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("what", ["no database", "broken pages"])
def test_a_damaged_database_is_no_try_again(file: Path, what: str, running: bool) -> None:
    store = FeedbackStore(f"sqlite:///{file}")
    for number in range(50):
        store.add(replace(GOOD, request_id=str(number), comment="x" * 1000))
    if not running:
        store = FeedbackStore(f"sqlite:///{file}")
    with file.open("r+b") as raw:
        if what == "broken pages":
            raw.seek(4096)
        raw.write(random.Random(0).randbytes(file.stat().st_size - raw.tell()))
    for _ in range(2):
        with pytest.raises(StoreDamaged, match="damaged") as caught:
            store.add(replace(GOOD, request_id="new"))
        assert "try again" not in str(caught.value)
        assert str(file) not in str(caught.value), "the reason is the operator's"
        with pytest.raises(StoreDamaged):
            store.check()


def test_a_large_file_is_looked_into_for_a_moment(file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE other (x)")
        connection.executemany("INSERT INTO other VALUES (?)", (("x" * 3000,) for _ in range(30_000)))
        connection.commit()
    with file.open("r+b") as raw:
        raw.seek(25_000 * 4096)  # a page near the end
        raw.write(random.Random(0).randbytes(4096))
    assert damage(file)
    # Many times, for on a busy machine the timer's thread may come when all has been looked at.
    assert any(not damage(file, limit_s=0.001) for _ in range(100)), "all feedback waits meanwhile"


def test_only_the_owner_can_read_the_files(file: Path) -> None:
    file.parent.mkdir()
    file.touch(mode=0o644)
    store = FeedbackStore(f"sqlite:///{file}")
    with store._connected() as connection:
        connection.execute(
            _TABLE.insert(), {"feedback_id": "x", "created_at": datetime.now(UTC), "key": "x"} | asdict(GOOD)
        )
        modes = {path.name: path.stat().st_mode & 0o777 for path in file.parent.iterdir()}
    assert modes == {f"{file.name}{end}": 0o600 for end in ("", "-wal", "-shm")}


def write(url: str, first: int, answers: Connection) -> None:
    """Add feedback until killed, and say the key of each that was answered."""
    store = FeedbackStore(url)
    for number in range(first, first + 10_000):
        store.add(replace(GOOD, request_id=str(number), comment=str(number) * 100))
        answers.send(number)


def test_kill_9_loses_nothing_that_was_answered(file: Path) -> None:
    url, rng, answered = f"sqlite:///{file}", random.Random(0), set()
    fork = multiprocessing.get_context("fork")
    for kill in range(KILLS):
        receiver, sender = fork.Pipe(duplex=False)
        writer = fork.Process(target=write, args=(url, kill * 10_000, sender))
        writer.start()
        sender.close()
        answered.add(receiver.recv())
        writer.join(rng.uniform(0, 0.03))
        writer.kill()
        writer.join()
        while receiver.poll():
            try:
                answered.add(receiver.recv())
            except EOFError:
                break
        receiver.close()
    store = FeedbackStore(url)
    stored = {int(row.feedback.request_id): row.feedback.comment for row in store.records()}
    store.close()
    assert len(answered) > KILLS
    assert answered <= stored.keys()
    assert len(stored) - len(answered) <= KILLS, "at most the one that was being answered, each time"
    assert all(comment == str(number) * 100 for number, comment in stored.items())
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
