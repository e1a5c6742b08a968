"""The database of the feedback: a SQLite file, or PostgreSQL by URL."""

import errno
import logging
import os
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from operator import eq, ge, lt
from pathlib import Path
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    ColumnElement,
    Connection,
    DateTime,
    Dialect,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    TypeDecorator,
    create_engine,
    delete,
    event,
    false,
    func,
    insert,
    select,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateTable

from neuro_latent_core.protocol import FEEDBACK_LIMITS
from neuro_latent_serving.errors import StoreDamaged, StoreUnavailable, StoreUnwritable
from neuro_latent_serving.feedback.record import FeedbackEntry, FeedbackRecord

TIMEOUT_S = 10
"""How long a write waits for that of another process, or for a database on the network to let it in."""

LOOKED_INTO_S = 1.0
"""How long a file is looked into before it is first written; all feedback waits for that."""

FETCHED_AT_ONCE = 500

DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
"""SQLite's codes for a file that does not recover by waiting."""

UNWRITABLE = (sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
UNWRITABLE_FILE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ELOOP,
    errno.ENAMETOOLONG,
)
UNWRITABLE_SQLSTATE = "42"
"""The same for what may not be written: of SQLite, of the file system, and (how its codes begin) of PostgreSQL, which
knows no such table or right. (It only reads for a moment when another server takes over: that is no such case.)"""

log = logging.getLogger("neuro_latent_serving")


class _UtcTime(TypeDecorator[datetime]):
    """A time in UTC; in the database without its zone, for SQLite knows none. Times without a zone are local."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and value.replace(tzinfo=UTC)


_TABLE = Table(
    "feedback",
    MetaData(),
    Column("feedback_id", String(32), primary_key=True),
    Column("created_at", _UtcTime, nullable=False),
    Column("key", String(FEEDBACK_LIMITS["idempotency_key"]), nullable=False, unique=True),
    *(Column(name, Text, nullable=False) for name in FEEDBACK_LIMITS),
    Column("rating", SmallInteger, CheckConstraint("rating IN (1, -1)"), nullable=False),
)


@dataclass(frozen=True, slots=True)
class Stored:
    """Where feedback of a key is now. ``created`` is False where it was known and nothing new was stored."""

    feedback_id: str
    created: bool
    key: str


@dataclass(frozen=True, slots=True)
class FeedbackStats:
    """What a store holds. ``users`` counts those with a name; ``first`` and ``last`` are None in an empty store."""

    total: int
    up: int
    down: int
    edited: int
    commented: int
    users: int
    by_model_version: dict[str, int]
    first: datetime | None
    last: datetime | None


def shown_url(url: URL) -> str:
    """A database's URL without its secrets, of which drivers take some as parameters too."""
    return url.set(query={}).render_as_string(hide_password=True)


def damage(file: Path, limit_s: float = threading.TIMEOUT_MAX) -> str:
    """What is wrong inside a SQLite file, in SQLite's words; "" where nothing is found. The file is only read.

    Args:
        limit_s: how long it is looked into. Of a large file that is a part; what is wrong with the rest is told when
            it is read or written.

    Raises:
        sqlite3.Error: it cannot be read now.
    """
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=TIMEOUT_S)) as connection:
        limit = threading.Timer(limit_s, connection.interrupt)
        limit.start()
        try:
            found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                return ""
            if not _says_damaged(error):
                raise
            return str(error)
        finally:
            limit.cancel()
            limit.join()
    return "" if found == "ok" else found


class FeedbackStore:
    """Feedback in a database that SQLAlchemy knows. Threads and processes may share it. It connects on first use.

    What :meth:`add` has returned is committed: SQLite with a write-ahead log and ``synchronous=FULL``, so that it
    survives a crash of the process and of the machine. Every transaction opens the SQLite file anew: one that was
    deleted is made again, and one that is deleted or replaced during the transaction fails it.

    Raises:
        ValueError: the URL is none, or its driver is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
        except (ArgumentError, ValueError):  # they may quote the URL, and its password with it
            form = "DIALECT+DRIVER://USER:PASSWORD@HOST/DATABASE, with %XX for special characters of the password"
            raise ValueError(f"the feedback cannot be stored: its URL is not of the form {form}") from None
        try:
            is_sqlite = parsed.get_backend_name() == "sqlite"
            self._file = sqlite_file(parsed)
            self._engine = create_engine(
                parsed,
                connect_args={"timeout" if is_sqlite else "connect_timeout": TIMEOUT_S},
                poolclass=NullPool if self._file else None,
                pool_pre_ping=not is_sqlite,  # a database may have been started again
                hide_parameters=True,  # no prompts in errors
            )
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise ValueError(f"the feedback cannot be stored in {shown_url(parsed)}: {error}") from None
        self._lock = threading.Lock()
        self._prepared: tuple[int, ...] | None = None  # the file whose inside has been looked at
        if is_sqlite:
            event.listen(self._engine, "connect", _set_up_sqlite)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def add(self, feedback: FeedbackEntry) -> Stored:
        """Store feedback; when this returns it is committed. The same key again stores nothing.

        Raises:
            StoreDamaged, StoreUnwritable: the database cannot be written until somebody repairs it.
            StoreUnavailable: it could not be written, and was not stored.
        """
        feedback_id = uuid.uuid4().hex
        row = {"feedback_id": feedback_id, "created_at": datetime.now(UTC), "key": feedback.key, **asdict(feedback)}
        try:
            with self._connected() as connection:
                connection.execute(insert(_TABLE), row)
            return Stored(feedback_id, created=True, key=feedback.key)
        except IntegrityError:
            with self._connected() as connection:
                known = connection.scalar(select(_TABLE.c.feedback_id).where(_TABLE.c.key == feedback.key))
            if known is None:  # purged in between
                raise StoreUnavailable("the feedback was not stored; try again") from None
            return Stored(known, created=False, key=feedback.key)

    def records(
        self, *, since: datetime | None = None, user: str | None = None, model_version: str | None = None
    ) -> Iterator[FeedbackRecord]:
        """What is stored, oldest first: from a time on, of one user, of one version of the model.

        Raises:
            StoreUnavailable: it cannot be read.
        """
        c = _TABLE.c
        wanted = _where((c.created_at, ge, since), (c.user, eq, user), (c.model_version, eq, model_version))
        query = select(_TABLE).where(*wanted).order_by(c.created_at, c.feedback_id)
        with self._connected() as connection:
            for row in connection.execution_options(yield_per=FETCHED_AT_ONCE).execute(query).mappings():
                fields = {name: row[name] for name in (*FEEDBACK_LIMITS, "rating")}
                yield FeedbackRecord(row["feedback_id"], row["created_at"], FeedbackEntry(**fields))

    def stats(self) -> FeedbackStats:
        """Counts of what is stored.

        Raises:
            StoreUnavailable: it cannot be read.
        """
        c = _TABLE.c
        counts = select(
            func.count().label("total"),
            func.count().filter(c.rating == 1).label("up"),
            func.count().filter(c.rating == -1).label("down"),
            func.count().filter(c.edited_prompt != "").label("edited"),
            func.count().filter(c.comment != "").label("commented"),
            func.count(c.user.distinct()).filter(c.user != "").label("users"),
            func.min(c.created_at).label("first"),
            func.max(c.created_at).label("last"),
        )
        versions = select(c.model_version, func.count()).group_by(c.model_version).order_by(c.model_version)
        with self._connected() as connection:
            row = connection.execute(counts).mappings().one()
            by_version: dict[str, int] = dict(connection.execute(versions).all())
        return FeedbackStats(**row, by_model_version=by_version)

    def purge(self, *, user: str | None = None, older_than: datetime | None = None) -> int:
        """Delete the feedback of a user, or from before a time, or (both given) what is both; how much it was.

        Nothing of it is left in the files of SQLite.

        Raises:
            ValueError: neither is given.
            StoreUnavailable: it cannot be written.
        """
        wanted = _where((_TABLE.c.user, eq, user), (_TABLE.c.created_at, lt, older_than))
        if not wanted:
            raise ValueError("purge needs a user, or a time")
        with self._connected() as connection:
            deleted = connection.execute(delete(_TABLE).where(*wanted)).rowcount
        if self._file is not None:
            with self._connected() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return deleted

    def check(self) -> None:
        """Whether feedback can be read and written now.

        Raises:
            StoreDamaged, StoreUnavailable: it cannot.
        """
        with self._connected() as connection:
            connection.execute(select(_TABLE.c.feedback_id).limit(1)).all()
            connection.execute(delete(_TABLE).where(false()))

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        """A transaction, committed at the end; what the database says becomes a StoreDamaged or a StoreUnavailable."""
        try:
            if not self._lock.acquire(timeout=TIMEOUT_S):  # else all would wait one after the other
                raise StoreUnavailable("the database of the feedback is unavailable; try again later")
            try:
                file = self._prepare()
            finally:
                self._lock.release()
            with self._engine.begin() as connection:
                yield connection
            if self._file is not None and _identity(self._file) != file:
                raise FileNotFoundError(f"{self._file} was deleted or replaced while it was written")
        except IntegrityError:
            raise
        except (SQLAlchemyError, OSError, sqlite3.Error) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            if _says_damaged(cause):
                raise StoreDamaged from error
            if _says_unwritable(cause):
                raise StoreUnwritable from error
            raise StoreUnavailable("the database of the feedback is unavailable; try again later") from error

    def _prepare(self) -> tuple[int, ...]:
        """Make what is missing, and look into a file that was not looked into before; which file it is."""
        if self._file is None:
            if self._prepared is None:
                with self._engine.begin() as connection:
                    connection.execute(CreateTable(_TABLE, if_not_exists=True))
                self._prepared = ()
            return ()
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # prompts are private
        # Never opened where it exists: closing it would end the locks that SQLite holds on it in this process.
        is_new = False
        with suppress(FileExistsError):
            os.close(os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            is_new = True
        if self._file.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(self._file))
        file = _identity(self._file)
        if is_new or file != self._prepared:  # a new file may have the number of one that is gone
            if self._prepared is not None:
                log.warning("the feedback's file %s was deleted or replaced; writing to the one there now", self._file)
            if found := damage(self._file, LOOKED_INTO_S):
                raise StoreDamaged from sqlite3.DatabaseError(f"{self._file}: {found}")
            for name in (f"{self._file}{end}" for end in ("", "-wal", "-shm")):
                with suppress(OSError):  # not there, or not ours
                    os.chmod(name, 0o600)
            self._prepared = file
        return file


def sqlite_file(url: URL) -> Path | None:
    """The file of a SQLite database; None where the database is another one, in memory or named by a URI."""
    name = url.database or ":memory:"
    if url.get_backend_name() != "sqlite" or name == ":memory:" or name.startswith("file:"):
        return None
    return Path(name).absolute()


def _identity(file: Path) -> tuple[int, ...]:
    """What tells the file at a path from another one that takes its place."""
    found = os.stat(file)
    return found.st_dev, found.st_ino


def _says_damaged(error: BaseException | None) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in DAMAGED


def _says_unwritable(error: BaseException | None) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)
    if code:  # a file that was deleted meanwhile is made again
        return code & 0xFF in UNWRITABLE and code != sqlite3.SQLITE_READONLY_DBMOVED
    sqlstate: str = getattr(error, "sqlstate", None) or ""
    return sqlstate.startswith(UNWRITABLE_SQLSTATE) or (isinstance(error, OSError) and error.errno in UNWRITABLE_FILE)


_CREATE = str(CreateTable(_TABLE, if_not_exists=True).compile(dialect=sqlite.dialect()))


def _set_up_sqlite(connection: Any, _: object) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute(_CREATE)


def _where(*wanted: tuple[Column[Any], Callable[..., ColumnElement[bool]], Any]) -> list[ColumnElement[bool]]:
    """The conditions whose value is given."""
    return [compare(column, value) for column, compare, value in wanted if value is not None]
