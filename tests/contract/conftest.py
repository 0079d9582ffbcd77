"""Stores for the contract tests: every test that asks for `store` runs on each adapter, on an empty database.

PostgreSQL is a real server, one per test run: the system's binaries over a cluster in a temporary folder. Databases are
clones of one that was migrated once.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from flow_platform.store import open_store, postgresql, tables, transaction
from flow_platform.store.base import Store
from tests.support.polling import eventually
from tests.support.postgresql_server import PostgresqlServer, server_binaries

_ALL_TABLES = transaction  # Tables are declared beside their rows; this imports them all.
ADAPTERS = ("sqlite", "postgresql")
_DELETES: Any = "; ".join(f'DELETE FROM "{table.name}"' for table in reversed(tables.metadata.sorted_tables))  # noqa: S608 - our own names.
# As a replica: without triggers, which let nobody empty the ledger.
_EMPTY: Any = f"SET session_replication_role = replica; {_DELETES}; RESET session_replication_role"


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    if server_binaries() is None:
        pytest.skip("no PostgreSQL server on this machine: run scripts/test-services")
    with PostgresqlServer() as server, pytest.MonkeyPatch.context() as patch:
        # Two stores of one process wait for each other's locks: on a slow machine for longer than production should.
        assert "lock_timeout = '3s'" in postgresql._SESSION
        patch.setattr(
            postgresql, "_SESSION", postgresql._SESSION.replace("lock_timeout = '3s'", "lock_timeout = '30s'")
        )
        _in_a_thread(_migrate(server.create_database("flow_template")))
        yield server


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    _in_a_thread(_migrate(f"sqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def shared_database(postgresql_server: PostgresqlServer) -> Iterator[psycopg.Connection[Any]]:
    """One database that is emptied between tests: a twentieth of the time of a new one."""
    url = postgresql_server.create_database("flow_shared", template="flow_template")
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture(params=ADAPTERS)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty, migrated database of each kind."""
    if request.param == "sqlite":
        path = tmp_path / "flow.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        assert not path.with_name("flow.db-wal").exists(), "a connection was left open"
        return
    connection = request.getfixturevalue("shared_database")
    yield request.getfixturevalue("postgresql_server").url("flow_shared")
    _require_no_sessions(connection)
    connection.execute(_EMPTY)


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_template: Path) -> str:
    shutil.copy(sqlite_template, tmp_path / "flow.db")
    return f"sqlite:///{tmp_path / 'flow.db'}"


@pytest.fixture
def postgresql_url(postgresql_server: PostgresqlServer) -> Iterator[str]:
    """A database of its own."""
    url = postgresql_server.create_database(template="flow_template")
    yield url
    postgresql_server.drop_database(url)


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    opened = open_store(store_url)
    await opened.open()
    yield opened
    await opened.close()


def _in_a_thread(work: Coroutine[Any, Any, None]) -> None:
    """Runs it to its end, also where an event loop runs: whichever test asks first for a fixture of the session."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


async def _migrate(url: str) -> None:
    store = open_store(url)
    await store.open()
    await store.close()


def _require_no_sessions(connection: psycopg.Connection[Any]) -> None:
    """A server process ends a moment after its client hung up."""

    def none_left() -> None:
        names = connection.execute(
            "SELECT application_name FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        ).fetchall()
        assert names == [], "a connection was left open"

    eventually(none_left, timeout=60)
