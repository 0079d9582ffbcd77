"""What the store does when the disk is full, the database is gone, locked or restarted, and the process is killed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from flow_platform.domain import errors
from flow_platform.store import open_store, sqlite
from flow_platform.store.base import ExecutionFilter, Payload, Store, Transaction
from flow_platform.store.query import Query
from flow_platform.store.sql_store import SqlStore
from flow_platform.store.sqlite import SqliteDatabase
from tests.support.store_records import execution, find, insert

CRASHER = Path(__file__).parents[1] / "support" / "store_writer.py"
FILLING = Payload("x" * 30_000)


class LimitedDatabase(SqliteDatabase):
    """May not grow beyond so many pages: for SQLite the same as a full disk."""

    def __init__(self, path: str, *, pages: int) -> None:
        super().__init__(path)
        self._pages = pages
        self._opened: list[sqlite3.Connection] = []

    def _connect(self) -> sqlite3.Connection:
        raw = super()._connect()
        raw.execute(f"PRAGMA max_page_count={self._pages}")
        self._opened.append(raw)
        return raw

    def grow(self) -> None:
        for raw in self._opened:
            with suppress(sqlite3.ProgrammingError):  # Closed since.
                raw.execute("PRAGMA max_page_count=100000")


class SmallDisk:
    """A database on a file system of one mebibyte, or where none can be mounted, one that may not grow beyond."""

    def __init__(self, folder: Path, template: Path) -> None:
        self._folder = folder
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "flow-test", folder], capture_output=True, check=False
        )
        self._is_mounted = mounted.returncode == 0
        path = folder / "flow.db"
        shutil.copy(template, path)
        self.database = SqliteDatabase(str(path)) if self._is_mounted else LimitedDatabase(str(path), pages=150)

    def grow(self) -> None:
        if isinstance(self.database, LimitedDatabase):
            self.database.grow()
        else:
            subprocess.run(["mount", "-o", "remount,size=64m", self._folder], check=True)

    def close(self) -> None:
        if self._is_mounted:
            subprocess.run(["umount", "--lazy", self._folder], check=True)  # Its last user may still be ending.


@pytest.fixture
def small_disk(tmp_path: Path, sqlite_template: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    disk = SmallDisk(folder, sqlite_template)
    yield disk
    disk.close()


async def fill(store: Store) -> tuple[list[str], errors.StorageFull]:
    """Writes until there is no room; returns what was accepted, and the refusal."""
    accepted: list[str] = []
    while len(accepted) < 200:
        one = execution()
        try:
            await insert(store, one, payload=FILLING)
        except errors.StorageFull as exc:
            assert await store.read(lambda tx, one=one: tx.executions.find(one.id)) is None
            return accepted, exc
        accepted.append(one.id)
    raise AssertionError("the disk never got full")


async def test_a_full_disk_refuses_loses_nothing_and_recovers_by_itself(small_disk: SmallDisk) -> None:
    store = SqlStore(small_disk.database)
    await store.open()

    accepted, refusal = await fill(store)
    assert accepted
    assert refusal.http_status == 507
    again = await asyncio.gather(
        *(insert(store, execution(), payload=FILLING) for _ in range(5)), return_exceptions=True
    )
    assert all(isinstance(outcome, errors.StorageFull) for outcome in again)
    page = await store.read(lambda tx: tx.executions.list("org", "workspace", ExecutionFilter(), None, 500))
    assert {one.id for one in page.items} == set(accepted), "reads go on, of exactly what was accepted"

    small_disk.grow()
    late = execution()
    await insert(store, late, payload=FILLING)
    await store.close()

    reopened = SqlStore(small_disk.database)
    await reopened.open()
    for execution_id in [*accepted, late.id]:
        assert (await reopened.read(lambda tx, i=execution_id: tx.executions.payload(i))) == FILLING
    await reopened.close()


async def test_what_does_not_fit_is_refused_alone(sqlite_url: str) -> None:
    store = SqlStore(LimitedDatabase(sqlite_url.removeprefix("sqlite:///"), pages=150))
    await store.open()
    small = [execution() for _ in range(10)]
    outcomes = await asyncio.gather(
        insert(store, execution(id="big"), payload=Payload("x" * 1_000_000)),
        *(insert(store, one) for one in small),
        return_exceptions=True,
    )

    assert isinstance(outcomes[0], errors.StorageFull)
    assert outcomes[1:] == [None] * 10, "the neighbours fit"
    for one in small:
        assert await find(store, one.id) == one
    assert await store.read(lambda tx: tx.executions.find("big")) is None
    await store.close()


async def test_a_database_locked_by_another_process_is_unavailable_and_recovers(sqlite_url: str) -> None:
    path = sqlite_url.removeprefix("sqlite:///")
    store = SqlStore(SqliteDatabase(path, busy_timeout=timedelta(milliseconds=20)))
    await store.open()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    outcomes = await asyncio.gather(*(insert(store, execution()) for _ in range(20)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {errors.StoreUnavailable}
    assert "locked" in str(outcomes[0])
    assert outcomes[0] is not outcomes[1]
    assert await store.read(lambda tx: tx.executions.counts()), "readers are not concerned"

    other.execute("COMMIT")
    other.close()
    one = execution()
    await insert(store, one)
    page = await store.read(lambda tx: tx.executions.list("org", "workspace", ExecutionFilter(), None, 10))
    assert page.items == [one], "nothing of the refused ones was written"
    await store.close()


async def test_a_database_file_that_vanishes_is_unavailable_until_it_is_back(sqlite_url: str, tmp_path: Path) -> None:
    store = open_store(sqlite_url)
    await store.open()
    kept = execution()
    await insert(store, kept)
    await store.close()
    store = open_store(sqlite_url)
    await store.open()
    await find(store, kept.id)
    away = tmp_path / "away"
    away.mkdir()

    def move(source: Path, target: Path) -> None:
        for file in source.glob("flow.db*"):
            file.rename(target / file.name)

    await asyncio.to_thread(move, tmp_path, away)
    for _ in range(2):
        with pytest.raises(errors.StoreUnavailable, match=r"gone|unable to open"):
            await insert(store, execution())
        with pytest.raises(errors.StoreUnavailable, match=r"gone|unable to open"):
            await find(store, kept.id)
    assert not (tmp_path / "flow.db").exists(), "no empty database takes its place"

    await asyncio.to_thread(move, away, tmp_path)
    late = execution()
    await insert(store, late)
    assert await find(store, kept.id) == kept
    assert await find(store, late.id) == late
    await store.close()


async def test_an_operation_cannot_swallow_a_full_disk(sqlite_url: str) -> None:
    store = SqlStore(LimitedDatabase(sqlite_url.removeprefix("sqlite:///"), pages=150))
    await store.open()

    def operation(tx: Transaction) -> str:
        with suppress(errors.StorageFull):
            tx.executions.insert(execution(id="half"), Payload("x" * 1_000_000))
        return "fine"

    with pytest.raises(errors.StorageFull):
        await store.write(operation)
    assert await store.read(lambda tx: tx.executions.find("half")) is None
    await store.close()


@pytest.mark.parametrize("after", [1, 40, 400])
async def test_a_killed_process_leaves_every_acknowledged_write_and_no_half_one(sqlite_url: str, after: int) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, CRASHER, sqlite_url, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    acknowledged = [(await process.stdout.readline()).decode().strip() for _ in range(after)]
    os.kill(process.pid, signal.SIGKILL)
    rest = (await process.stdout.read()).decode().splitlines(keepends=True)
    acknowledged += [line.strip() for line in rest if line.endswith("\n")]
    assert await process.wait() == -signal.SIGKILL

    store = open_store(sqlite_url)
    await store.open()
    page = await store.read(lambda tx: tx.executions.list("org", "workspace", ExecutionFilter(), None, 100_000))
    stored = {one.id for one in page.items}
    assert set(acknowledged) <= stored
    for execution_id in stored:
        payload = await store.read(lambda tx, i=execution_id: tx.executions.payload(i))
        events = await store.read(lambda tx, i=execution_id: tx.executions.events(i, 0, 10))
        assert payload.input_data == {"id": execution_id}
        assert [event.position for event in events] == [1, 2, 3]
    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert raw.execute("PRAGMA foreign_key_check").fetchall() == []
    raw.close()
    await store.close()


async def test_too_many_waiting_writes_are_refused_and_the_accepted_ones_arrive(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flow_platform.store import group_commit

    monkeypatch.setattr(group_commit, "MAX_WAITING", 10)
    store = open_store(sqlite_url)
    await store.open()
    executions = [execution() for _ in range(200)]

    outcomes = await asyncio.gather(*(insert(store, one) for one in executions), return_exceptions=True)

    refused = [outcome for outcome in outcomes if outcome is not None]
    assert refused
    assert all(isinstance(outcome, errors.StoreUnavailable) for outcome in refused)
    counts = await store.read(lambda tx: tx.executions.counts())
    assert counts["queued"] == len(executions) - len(refused)
    await store.close()


async def test_a_mistake_of_the_writer_itself_is_survived(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(sqlite_url)
    await store.open()
    broken: Callable[[sqlite.SqliteConnection], None] = lambda self: 1 / 0  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(sqlite.SqliteConnection, "begin", broken)
        with pytest.raises(errors.StoreUnavailable, match="ZeroDivisionError"):
            await insert(store, execution())

    one = execution()
    await insert(store, one)
    assert await find(store, one.id) == one
    assert "the store's writer failed" in caplog.text
    await store.close()


async def test_a_mistake_in_a_statement_reaches_the_caller_unchanged(store: Store) -> None:
    import sqlalchemy as sa

    wrong = Query("wrong", sa.select(sa.bindparam("missing", type_=sa.Text)))
    neighbour = execution()

    outcomes = await asyncio.gather(
        store.write(lambda tx: tx.executions._connection.rows(wrong, {})),
        insert(store, neighbour),
        return_exceptions=True,
    )

    assert "ProgrammingError" in type(outcomes[0]).__name__
    assert await find(store, neighbour.id) == neighbour
