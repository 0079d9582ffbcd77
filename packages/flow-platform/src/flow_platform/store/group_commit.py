"""The writer: one thread, one connection, one commit for everything that is waiting.

Operations that arrive while a commit is on its way to the disk wait together and share the next one; nothing waits for
company that may never come. Each operation of a batch runs in a savepoint of its own. Outcomes, errors too, are told
after the commit only, because an operation may have decided by what a neighbour wrote.

When the batch as a whole fails, it is rolled back and its operations run again, each in a transaction of its own: the
one that does not fit on the disk, or that another process is in conflict with, then fails alone. A connection that
broke before the commit is replaced once, and the batch runs again. Operations have no effects but on the transaction,
so running them again is safe.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flow_platform.domain import errors
from flow_platform.store.base import Transaction
from flow_platform.store.connection import Connection, Database
from flow_platform.store.failures import ConcurrencyFailure, ConnectionLost, RowConflict

MAX_BATCH: Final = 256  # Bounds the time an operation waits for its neighbours, and the locks a batch holds.
MAX_WAITING: Final = 10_000  # Beyond this the database is not keeping up, and waiting longer helps nobody.
MAX_RUNS: Final = 5  # Of one operation that is in conflict with other processes.

Operation = Callable[[Transaction], Any]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    value: Any = None
    error: BaseException | None = None


@dataclass(frozen=True)
class Job:
    operation: Operation
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


class GroupCommit:
    """Runs operations in the order they were submitted."""

    def __init__(self, database: Database, transaction: Callable[[Connection], Transaction]) -> None:
        self._database = database
        self._transaction = transaction
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._connection: Connection | None = None
        self._on_connection: Transaction | None = None  # Its tables, made once: one transaction follows the other.
        self._has_begun = False  # The current transaction; when it could not begin, trying job by job can't help.
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._gate = threading.Lock()  # Between `submit` and `close`: nothing is accepted behind the end.
        self._is_closed = False

    def start(self) -> None:
        """Connects, so that a database that is not there is found now.

        Raises:
            StoreUnavailable: With what the database said.
        """
        self._connect()
        self._thread.start()

    def submit(self, operation: Operation) -> asyncio.Future[Any]:
        """Accepts an operation; the future, of the running loop, ends after its commit.

        Raises:
            StoreUnavailable: Closed, or too many are waiting.
        """
        loop = asyncio.get_running_loop()
        job = Job(operation, loop, loop.create_future())
        with self._gate:
            if self._is_closed:
                raise errors.StoreUnavailable("the store is closed")
            if self._waiting.qsize() >= MAX_WAITING:
                raise errors.StoreUnavailable(f"{MAX_WAITING} writes are waiting for the database; no more are taken")
            self._waiting.put(job)
        return job.future

    def close(self) -> None:
        """Waits for everything that was accepted."""
        with self._gate:
            if not self._is_closed:
                self._is_closed = True
                self._waiting.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            jobs = [first]
            is_last = False
            while len(jobs) < MAX_BATCH and not self._waiting.empty():
                job = self._waiting.get()
                if job is None:
                    is_last = True
                    break
                jobs.append(job)
            _deliver(jobs, self._outcomes(jobs))
            if is_last:
                break
        self._drop_connection()

    def _outcomes(self, jobs: Sequence[Job]) -> list[Outcome]:
        try:
            return self._commit(jobs)
        except errors.StoreUnavailable as exc:
            if len(jobs) == 1 or isinstance(exc, ConnectionLost) or not self._has_begun:
                return [Outcome(error=_fresh(exc)) for _ in jobs]
            return [self._outcomes([job])[0] for job in jobs]
        except Exception as exc:  # noqa: BLE001 - a process loop.
            # The writer must outlive every mistake: without it the process would hang, looking alive.
            _log.exception("the store's writer failed")
            self._drop_connection()
            return [Outcome(error=errors.StoreUnavailable(f"the store's writer failed: {exc!r}")) for _ in jobs]

    def _commit(self, jobs: Sequence[Job]) -> list[Outcome]:
        """One transaction for all; begun again after a lost connection (once), and after conflicts of one job alone."""
        may_reconnect = self._connection is not None
        runs = 0
        while True:
            runs += 1
            try:
                return self._commit_once(jobs)
            except ConnectionLost as exc:
                if not may_reconnect or exc.error_code == "commit_unknown":
                    raise
                may_reconnect = False
            except ConcurrencyFailure:
                if len(jobs) > 1 or runs >= MAX_RUNS:
                    raise

    def _commit_once(self, jobs: Sequence[Job]) -> list[Outcome]:
        self._has_begun = False
        connection, transaction = self._connect()
        try:
            connection.begin()
            self._has_begun = True
            if len(jobs) == 1:
                outcomes = [_run_alone(connection, transaction, jobs[0])]
            else:
                outcomes = [_run_in_savepoint(connection, transaction, job) for job in jobs]
            if outcomes[0].error is not None and len(jobs) == 1:
                connection.rollback()
            else:
                connection.commit()
        except BaseException as exc:
            self._abandon(connection, exc)
            raise
        return outcomes

    def _connect(self) -> tuple[Connection, Transaction]:
        """As it stands, or anew."""
        if self._connection is None or self._on_connection is None:
            self._connection = self._database.connect_writer()
            self._on_connection = self._transaction(self._connection)
        return self._connection, self._on_connection

    def _abandon(self, connection: Connection, cause: BaseException) -> None:
        if not isinstance(cause, ConnectionLost):
            try:
                connection.rollback()
            except errors.StoreUnavailable:
                pass
            else:
                return
        self._drop_connection()

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = self._on_connection = None


def _run_alone(connection: Connection, transaction: Transaction, job: Job) -> Outcome:
    outcome = _run_operation(connection, transaction, job)
    for _ in range(MAX_RUNS - 1):
        if not isinstance(outcome.error, RowConflict):
            break
        connection.rollback()
        connection.begin()
        outcome = _run_operation(connection, transaction, job)
    return outcome


def _run_in_savepoint(connection: Connection, transaction: Transaction, job: Job) -> Outcome:
    connection.savepoint()
    outcome = _run_operation(connection, transaction, job)
    for _ in range(MAX_RUNS - 1):
        if not isinstance(outcome.error, RowConflict):
            break
        connection.rollback_to_savepoint()
        outcome = _run_operation(connection, transaction, job)
    if outcome.error is not None:
        connection.rollback_to_savepoint()
    return outcome


def _run_operation(connection: Connection, transaction: Transaction, job: Job) -> Outcome:
    """Runs one operation. Its own error is an outcome; one that ends the transaction is raised."""
    try:
        outcome = Outcome(job.operation(transaction))
    except errors.StoreUnavailable:
        raise
    except BaseException as exc:  # noqa: BLE001 - whatever it is, it belongs to the caller.
        outcome = Outcome(error=exc)
    if isinstance(connection.failure, errors.StoreUnavailable):
        raise connection.failure
    if connection.failure is not None and outcome.error is None:
        # The operation swallowed it, but the database has given up what came before.
        return Outcome(error=connection.failure)
    return outcome


def _fresh(exc: errors.StoreUnavailable) -> errors.StoreUnavailable:
    """An exception for one caller: one object raised in several tasks would gather the tracebacks of all."""
    made = copy.copy(exc)
    made.__cause__ = exc.__cause__
    return made


def _deliver(jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> None:
    """Wakes each waiting loop once for all of its outcomes."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Outcome]]] = {}
    for job, outcome in zip(jobs, outcomes, strict=True):
        by_loop.setdefault(job.loop, []).append((job.future, outcome))
    for loop, settled in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle, settled)
        except RuntimeError:
            # The loop is closed: nobody waits any more. What was committed stays committed.
            _log.debug("outcomes of %d writes had no loop to go to", len(settled))


def _settle(settled: list[tuple[asyncio.Future[Any], Outcome]]) -> None:
    for future, outcome in settled:
        if future.done():  # Its caller was cancelled.
            continue
        if outcome.error is None:
            future.set_result(outcome.value)
        elif isinstance(outcome.error, StopIteration):
            error = RuntimeError("the operation raised StopIteration")  # Which a future refuses.
            error.__cause__ = outcome.error
            future.set_exception(error)
        else:
            future.set_exception(outcome.error)
