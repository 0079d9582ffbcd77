"""SQLite: one file, one writer, any number of readers (WAL).

A commit returns when the log is on disk (`synchronous=FULL`). The writer takes the database's lock when its transaction
begins (BEGIN IMMEDIATE), so it never finds out at the end that another process was first.

Source: https://www.sqlite.org/wal.html, https://www.sqlite.org/pragma.html#pragma_synchronous
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from flow_platform.domain import errors
from flow_platform.store import schema
from flow_platform.store.connection import Connection, Parameters, Row, checked, first_not_storable
from flow_platform.store.failures import ConnectionLost, RowConflict
from flow_platform.store.query import DialectName, Query

OLDEST_VERSION: Final = (3, 35, 0)  # The first with RETURNING.
BUSY_TIMEOUT: Final = timedelta(seconds=5)  # How long another process may hold the write lock before we say so.
NO_ROOM_BYTES: Final = 1 << 20  # An I/O error on a disk with less room than this is a full disk.
LOG_BYTES_KEPT: Final = 64 << 20  # A log that once grew larger is cut back to this.
CACHE_KIB: Final = 32 << 10


class SqliteDatabase:
    dialect: DialectName = "sqlite"

    def __init__(self, path: str, *, busy_timeout: timedelta = BUSY_TIMEOUT) -> None:
        self._path = path
        self._busy_timeout = busy_timeout

    def prepare(self) -> None:
        if sqlite3.sqlite_version_info < OLDEST_VERSION:
            expected = ".".join(map(str, OLDEST_VERSION))
            raise errors.StoreUnavailable(f"SQLite {sqlite3.sqlite_version!r} is too old: expected {expected} or newer")
        try:
            # The file holds signing keys, so it is its owner's alone; SQLite gives its log the same mode.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as exc:
            raise errors.StoreUnavailable(f"cannot open the database {self._path!r}: {exc.strerror}") from exc
        raw = self._connect()
        try:
            mode = raw.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            if mode != "wal":
                raise errors.StoreUnavailable(
                    f"the database {self._path!r} has journal mode {mode!r}: expected 'wal'",
                    hint="keep the database on a local disk",
                )
            if schema.current_version(raw.execute, _is_missing_table) != schema.HEAD:
                schema.upgrade("sqlite", self._connect)
        except sqlite3.Error as exc:
            raise self.translated(exc) from exc
        finally:
            raw.close()

    def connect_writer(self) -> Connection:
        return SqliteConnection(self, self._connect(), begin="BEGIN IMMEDIATE")

    def connect_reader(self) -> Connection:
        raw = self._connect()
        raw.execute("PRAGMA query_only=ON")
        return SqliteConnection(self, raw, begin="BEGIN")

    def _connect(self) -> sqlite3.Connection:
        try:
            raw = sqlite3.connect(
                # Never creates: a file that vanished must not come back empty.
                f"file:{quote(self._path)}?mode=rw",
                uri=True,
                timeout=self._busy_timeout.total_seconds(),
                isolation_level=None,  # Transactions are ours.
                check_same_thread=False,  # Opened in one thread, used in another; never in two at a time.
                cached_statements=256,
            )
            raw.execute("PRAGMA synchronous=FULL")
            raw.execute("PRAGMA foreign_keys=ON")
            raw.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
            raw.execute("PRAGMA temp_store=MEMORY")
            raw.execute(f"PRAGMA journal_size_limit={LOG_BYTES_KEPT}")
        except sqlite3.Error as exc:
            raise self.translated(exc) from exc
        return raw

    def identity(self) -> tuple[int, int]:
        """Which file the path names now.

        Raises:
            ConnectionLost: None.
        """
        try:
            stat = os.stat(self._path)  # noqa: PTH116 - once per transaction; a Path costs three times as much.
        except OSError as exc:
            raise ConnectionLost(f"the database {self._path!r} is gone: {exc.strerror}") from exc
        return stat.st_dev, stat.st_ino

    def translated(self, exc: sqlite3.Error) -> errors.FlowError:
        extended = getattr(exc, "sqlite_errorcode", 0)
        what = f"the database {self._path!r} says: {exc}"
        match extended & 0xFF:
            case sqlite3.SQLITE_FULL:
                return errors.StorageFull(f"no room for the database {self._path!r}: {exc}")
            case sqlite3.SQLITE_CONSTRAINT if extended == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
                return errors.NotFound("a row that the new one refers to does not exist")
            case sqlite3.SQLITE_CONSTRAINT if extended != sqlite3.SQLITE_CONSTRAINT_NOTNULL:
                return RowConflict(f"such a row exists already: {exc}")
            case sqlite3.SQLITE_TOOBIG:
                return errors.PayloadTooLarge(f"a value is larger than SQLite takes: {exc}")
            case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_CANTOPEN:
                return (
                    errors.StorageFull(f"no room for {self._path!r}: {exc}")
                    if self._is_full()
                    else ConnectionLost(what)
                )
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                return ConnectionLost(what)
            case _:
                return errors.StoreUnavailable(what)

    def _is_full(self) -> bool:
        try:
            room = os.statvfs(Path(self._path).parent)
        except OSError:
            return False
        return room.f_bavail * room.f_frsize < NO_ROOM_BYTES


class SqliteConnection:
    dialect: DialectName = "sqlite"

    def __init__(self, database: SqliteDatabase, raw: sqlite3.Connection, *, begin: str) -> None:
        self._database = database
        self._raw = raw
        self._begin = begin
        self._identity = database.identity()
        self._in_operation = False
        self.failure: errors.FlowError | None = None

    def rows(self, query: Query, parameters: Parameters) -> Sequence[Row]:
        return self._execute(query, parameters).fetchall()

    def row(self, query: Query, parameters: Parameters) -> Row | None:
        # All, not one: a statement left in the middle would keep its snapshot.
        found = self._execute(query, parameters).fetchall()
        return found[0] if found else None

    def run(self, query: Query, parameters: Parameters) -> int:
        return self._execute(query, parameters).rowcount

    def rows_of_each(self, query: Query, parameters: Sequence[Parameters]) -> list[Row]:
        return [row for one in parameters for row in self.rows(query, one)]

    def begin(self) -> None:
        if self._database.identity() != self._identity:
            raise ConnectionLost("the database file was replaced by another one")
        self.failure = None
        self._in_operation = False
        self._control(self._begin)

    def savepoint(self) -> None:
        if self._in_operation:
            self._control("RELEASE operation")
        self._control("SAVEPOINT operation")
        self._in_operation = True
        self.failure = None

    def rollback_to_savepoint(self) -> None:
        self._control("ROLLBACK TO operation")
        self.failure = None

    def commit(self) -> None:
        self._control("COMMIT")

    def rollback(self) -> None:
        # Some errors (a full disk) have rolled back already.
        if self._raw.in_transaction:
            self._control("ROLLBACK")

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self._raw.close()

    def _control(self, statement: str) -> None:
        try:
            self._raw.execute(statement)
        except sqlite3.Error as exc:
            raise self._database.translated(exc) from exc

    def _execute(self, query: Query, parameters: Parameters) -> sqlite3.Cursor:
        text, constants = query.text("sqlite")
        values: Any = checked({**constants, **parameters} if constants else parameters)
        try:
            return self._raw.execute(text, values)
        except (sqlite3.ProgrammingError, sqlite3.InterfaceError):
            raise  # A mistake in our own statements.
        except sqlite3.Error as exc:
            self.failure = self._database.translated(exc)
            raise self.failure from exc
        except (OverflowError, UnicodeEncodeError) as exc:
            raise first_not_storable([parameters], exc) from exc


def _is_missing_table(exc: Exception) -> bool:
    return isinstance(exc, sqlite3.OperationalError) and "no such table" in str(exc)
