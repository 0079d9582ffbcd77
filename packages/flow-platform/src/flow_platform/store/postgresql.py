"""PostgreSQL 13 or newer, by psycopg 3.

The writer's transactions are READ COMMITTED and lock what they decide about; a reader's is one REPEATABLE READ
snapshot. Statements of the transaction itself travel together with others in one message where they can, because on
this database a round trip costs more than the statement.

Source: https://www.postgresql.org/docs/current/errcodes-appendix.html, .../functions-info.html (pg_xact_status)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, LiteralString, cast

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from flow_platform.domain import errors
from flow_platform.store import schema
from flow_platform.store.connection import Connection, Parameters, Row, checked, first_not_storable
from flow_platform.store.failures import ConcurrencyFailure, ConnectionLost, RowConflict
from flow_platform.store.query import DialectName, Query

# What a URL does not say itself. A server that is cut off without a word is noticed in seconds, not in the quarter of
# an hour that TCP would take: the writer waits for it, and everybody for the writer.
_DEFAULTS: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    "fallback_application_name": "flow",
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,  # Milliseconds.
}
RESOLVE_SECONDS: Final = 10.0  # How long to ask what became of a commit whose answer was lost.
RESOLVE_PAUSE_SECONDS: Final = 0.05

# A process that hangs in the middle of a transaction must not hold its row locks for ever: the server ends it. A server
# that was told to acknowledge before it syncs is told otherwise for these sessions: 202 means kept.
_SESSION: Final = """
    SET lock_timeout = '3s';
    SET statement_timeout = '30s';
    SET idle_in_transaction_session_timeout = '30s';
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
"""
_READER_SESSION: Final = """
    SET default_transaction_isolation = 'repeatable read';
    SET default_transaction_read_only = on
"""
_BEGIN_WRITER: Final = "BEGIN; SELECT pg_current_xact_id()::text"
_BEGIN_READER: Final = "BEGIN"


class PostgresqlDatabase:
    dialect: DialectName = "postgresql"

    def __init__(self, url: str) -> None:
        self._url = url

    def prepare(self) -> None:
        raw = self.connect()
        try:
            encoding = raw.info.parameter_status("server_encoding")
            if encoding != "UTF8":
                raise errors.StoreUnavailable(f"the database's encoding is {encoding!r}: expected 'UTF8'")
            if schema.current_version(raw.execute, _is_missing_table) != schema.HEAD:
                schema.upgrade("postgresql", self.connect)
        except psycopg.Error as exc:
            raise translated(exc, raw) from exc
        finally:
            raw.close()

    def connect_writer(self) -> Connection:
        return PostgresqlConnection(self, self.connect(), begin=_BEGIN_WRITER)

    def connect_reader(self) -> Connection:
        raw = self.connect()
        try:
            raw.execute(_READER_SESSION)
        except psycopg.Error as exc:
            raw.close()
            raise translated(exc, raw) from exc
        return PostgresqlConnection(self, raw, begin=_BEGIN_READER)

    def connect(self) -> psycopg.Connection[Row]:
        try:
            options: dict[str, Any] = {**_DEFAULTS, **conninfo_to_dict(self._url)}
            raw = psycopg.connect(make_conninfo(**options), autocommit=True)
        except psycopg.Error as exc:
            raise ConnectionLost(f"PostgreSQL does not answer: {str(exc).strip()}") from exc
        try:
            raw.execute(_SESSION)
        except psycopg.Error as exc:
            raw.close()
            raise translated(exc, raw) from exc
        return raw


class PostgresqlConnection:
    dialect: DialectName = "postgresql"

    def __init__(self, database: PostgresqlDatabase, raw: psycopg.Connection[Row], *, begin: LiteralString) -> None:
        self._database = database
        self._raw = raw
        self._cursor = raw.cursor()
        self._begin: LiteralString = begin
        self._transaction_id: str | None = None
        self._in_operation = False
        self.failure: errors.FlowError | None = None

    def rows(self, query: Query, parameters: Parameters) -> Sequence[Row]:
        return self._execute(query, parameters).fetchall()

    def row(self, query: Query, parameters: Parameters) -> Row | None:
        return self._execute(query, parameters).fetchone()

    def run(self, query: Query, parameters: Parameters) -> int:
        return self._execute(query, parameters).rowcount

    def rows_of_each(self, query: Query, parameters: Sequence[Parameters]) -> list[Row]:
        if len(parameters) == 1:
            return list(self.rows(query, parameters[0]))
        if not parameters:
            return []
        text, constants = query.text("postgresql")
        found: list[Row] = []
        try:
            self._cursor.executemany(
                cast("LiteralString", text), [checked({**constants, **one}) for one in parameters], returning=True
            )
            while True:
                found.extend(self._cursor.fetchall())
                if not self._cursor.nextset():
                    return found
        except psycopg.Error as exc:
            raise self._failed(exc) from exc
        except (OverflowError, UnicodeEncodeError) as exc:
            raise first_not_storable(parameters, exc) from exc

    def begin(self) -> None:
        self.failure = None
        self._in_operation = False
        self._control(self._begin)
        if self._begin is _BEGIN_WRITER:
            self._cursor.nextset()
            row = self._cursor.fetchone()
            self._transaction_id = row[0] if row else None

    def savepoint(self) -> None:
        self._control(
            "RELEASE SAVEPOINT operation; SAVEPOINT operation" if self._in_operation else "SAVEPOINT operation"
        )
        self._in_operation = True
        self.failure = None

    def rollback_to_savepoint(self) -> None:
        self._control("ROLLBACK TO SAVEPOINT operation")
        self.failure = None

    def commit(self) -> None:
        try:
            self._control("COMMIT")
        except ConnectionLost as exc:
            if self._transaction_id is None:
                raise
            self._resolve(self._transaction_id, exc)
            return
        if self._cursor.statusmessage != "COMMIT":
            raise errors.StoreUnavailable(f"PostgreSQL answered COMMIT with {self._cursor.statusmessage!r}")

    def rollback(self) -> None:
        self._control("ROLLBACK")

    def close(self) -> None:
        with suppress(psycopg.Error):
            self._raw.close()

    def _control(self, statement: LiteralString) -> None:
        try:
            # Not prepared: a prepared statement can't be several.
            self._cursor.execute(statement, prepare=False)
        except psycopg.Error as exc:
            raise translated(exc, self._raw) from exc

    def _execute(self, query: Query, parameters: Parameters) -> psycopg.Cursor[Row]:
        text, constants = query.text("postgresql")
        values = checked({**constants, **parameters} if constants else parameters)
        try:
            return self._cursor.execute(cast("LiteralString", text), values)
        except psycopg.Error as exc:
            raise self._failed(exc) from exc
        except (OverflowError, UnicodeEncodeError) as exc:
            raise first_not_storable([parameters], exc) from exc

    def _failed(self, exc: psycopg.Error) -> Exception:
        if exc.sqlstate is None and not self._raw.closed:
            return exc  # Psycopg itself: a mistake in our own statements.
        self.failure = translated(exc, self._raw)
        return self.failure

    def _resolve(self, transaction_id: str, lost: ConnectionLost) -> None:
        """Asks over a new connection what became of a commit whose answer never came.

        Returns when it was committed; this connection is usable then.

        Raises:
            ConnectionLost: It was not; or (code `commit_unknown`) nobody could say.
        """
        give_up_at = time.monotonic() + RESOLVE_SECONDS
        while True:
            match self._status_of(transaction_id):
                case "committed":
                    return
                case "aborted":
                    raise lost
                case _ if time.monotonic() >= give_up_at:
                    raise ConnectionLost(
                        f"the connection broke during a commit, and what became of it is unknown: {lost.message}",
                        code="commit_unknown",
                    )
                case _:
                    time.sleep(RESOLVE_PAUSE_SECONDS)

    def _status_of(self, transaction_id: str) -> str | None:
        """What the server knows of a transaction; None when it can't be asked now."""
        self.close()
        try:
            raw = self._database.connect()
            self._raw, self._cursor = raw, raw.cursor()
            row = self._cursor.execute("SELECT pg_xact_status(%s::xid8)", (transaction_id,)).fetchone()
        except (errors.StoreUnavailable, psycopg.Error):
            return None
        return row[0] if row else None


def translated(exc: psycopg.Error, raw: psycopg.Connection[Any]) -> errors.FlowError:
    said = str(exc).strip()
    state = exc.sqlstate or ""
    if raw.closed or state[:2] == "08" or state in ("57P01", "57P02", "57P03", "25P03", "25P04"):
        return ConnectionLost(f"PostgreSQL is gone: {said}")
    match state:
        case "40001" | "40P01":
            return ConcurrencyFailure(f"PostgreSQL gave the transaction up for another one: {said}")
        case "53100":
            return errors.StorageFull(f"no room for the database: {said}")
        case "23503":
            return errors.NotFound("a row that the new one refers to does not exist")
        case "23505":
            return RowConflict(f"such a row exists already: {said}")
        case "22003" | "22021" | "22P05":
            return errors.InvalidInput(f"a value cannot be stored: {said}")
        case _:
            return errors.StoreUnavailable(f"PostgreSQL says: {said}")


def _is_missing_table(exc: Exception) -> bool:
    return isinstance(exc, psycopg.errors.UndefinedTable)
