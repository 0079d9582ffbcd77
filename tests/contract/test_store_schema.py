"""The schema: the sum of the migrations is `tables.py`, in both databases, and every start finds its way to it."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory

from flow_platform.domain import errors
from flow_platform.store import open_store, schema, tables
from tests.support.postgresql_server import PostgresqlServer
from tests.support.store_records import execution, find, insert


def test_head_is_the_newest_revision_and_there_is_one() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))

    assert ScriptDirectory.from_config(config).get_heads() == [schema.HEAD]


def test_the_sum_of_the_migrations_is_the_schema_on_sqlite(sqlite_url: str, tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'metadata.db'}")
    tables.metadata.create_all(engine)
    engine.dispose()

    assert sqlite_schema(sqlite_url) == sqlite_schema(f"sqlite:///{tmp_path / 'metadata.db'}")


def test_the_sum_of_the_migrations_is_the_schema_on_postgresql(
    postgresql_server: PostgresqlServer, postgresql_url: str
) -> None:
    url = postgresql_server.create_database()
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    tables.metadata.create_all(engine)
    engine.dispose()

    assert postgresql_schema(postgresql_url) == postgresql_schema(url)
    postgresql_server.drop_database(url)


async def test_a_second_start_finds_its_data_and_imports_no_alembic(sqlite_url: str) -> None:
    store = open_store(sqlite_url)
    await store.open()
    one = execution()
    await insert(store, one)
    await store.close()
    program = (
        "import asyncio, sys\n"
        "from flow_platform.store import open_store\n"
        "async def main():\n"
        f"    store = open_store({sqlite_url!r})\n"
        "    await store.open()\n"
        f"    found = await store.read(lambda tx: tx.executions.find({one.id!r}))\n"
        "    await store.close()\n"
        "    print(found is not None, [name for name in ('alembic', 'psycopg', 'mako') if name in sys.modules])\n"
        "asyncio.run(main())\n"
    )

    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert (done.stdout, done.stderr) == ("True []\n", "")


def test_the_port_imports_neither_sqlalchemy_nor_a_driver() -> None:
    program = (
        "import sys, flow_platform.store, flow_platform.store.base\n"
        "print([name for name in ('sqlalchemy', 'alembic', 'psycopg', 'sqlite3') if name in sys.modules])\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_processes_that_start_at_once_on_an_empty_database_make_the_schema_once(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server: PostgresqlServer | None = None
    if kind == "postgresql":
        server = request.getfixturevalue("postgresql_server")
        url = server.create_database()
    else:
        url = f"sqlite:///{tmp_path / 'new.db'}"
    stores = [open_store(url) for _ in range(3)]

    program = (
        "import asyncio, sys\n"
        "from flow_platform.store import open_store\n"
        "async def main():\n"
        f"    store = open_store({url!r})\n"
        "    await store.open()\n"
        "    await store.close()\n"
        "asyncio.run(main())\n"
    )
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", program, stderr=subprocess.PIPE) for _ in range(3)
    ]
    ends = await asyncio.gather(*(process.communicate() for process in processes))
    assert [process.returncode for process in processes] == [0, 0, 0], ends

    one = execution()
    for store in stores:
        await store.open()
    await insert(stores[0], one)
    assert await find(stores[2], one.id) == one
    for store in stores:
        await store.close()
    if server:
        server.drop_database(url)


async def test_a_schema_of_a_newer_program_is_refused_and_left_alone(sqlite_url: str, postgresql_url: str) -> None:
    path = sqlite_url.removeprefix("sqlite:///")
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()
    with psycopg.connect(postgresql_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = sqlite_schema(sqlite_url)

    for url in (sqlite_url, postgresql_url):
        with pytest.raises(errors.StoreUnavailable, match="9999") as refused:
            await open_store(url).open()
        assert "newer version" in refused.value.hint
    assert sqlite_schema(sqlite_url) == before


async def test_the_database_file_and_its_log_are_their_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    store = open_store(f"sqlite:///{path}")
    await store.open()
    await insert(store, execution())

    files = [path, tmp_path / "new.db-wal", tmp_path / "new.db-shm"]
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600] * 3
    with sqlite3.connect(path) as raw:
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    raw.close()
    await store.close()


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("sqlite:////no/such/folder/flow.db", "No such file"),
        ("sqlite:////proc/self/flow.db", "flow.db"),
        ("sqlite:////dev/null", "/dev/null"),
        ("postgresql://flow@127.0.0.1:1/none", "PostgreSQL does not answer"),
        ("postgresql://flow:secret@127.0.0.1:1/none?nonsense=1", "PostgreSQL does not answer"),
    ],
)
async def test_a_database_that_cannot_be_opened_says_why(url: str, what: str) -> None:
    store = open_store(url)

    with pytest.raises(errors.StoreUnavailable, match=what) as refused:
        await store.open()

    assert "secret" not in str(refused.value)
    await store.close()


async def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but somebody's notes\n" * 100)

    with pytest.raises(errors.StoreUnavailable, match="not a database"):
        await open_store(f"sqlite:///{path}").open()

    assert path.read_text() == "not a database, but somebody's notes\n" * 100


def sqlite_schema(url: str) -> set[tuple[str, str]]:
    with sqlite3.connect(url.removeprefix("sqlite:///")) as raw:
        rows = raw.execute(
            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name <> 'alembic_version'"
        ).fetchall()
    raw.close()
    return {(name, canonical(sql)) for name, sql in rows}


def canonical(sql: str) -> str:
    """Without what does not matter: white space, quotes that a rebuilt table has, the order of constraints."""
    words = re.sub(r"\s+", " ", sql).replace("( ", "(").replace(" )", ")")
    head, _, body = words.partition("(")
    head = head.replace('"', "")
    return head + "(" + ", ".join(sorted(re.split(r", (?![^(]*\))", body.removesuffix(")"))))


def postgresql_schema(url: str) -> dict[str, list[Any]]:
    with psycopg.connect(url) as connection:
        return {
            "columns": connection.execute(
                "SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name"
                " FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'"
                " ORDER BY table_name, ordinal_position"
            ).fetchall(),
            "indexes": connection.execute(
                "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
                " AND tablename <> 'alembic_version' ORDER BY indexname"
            ).fetchall(),
            "constraints": connection.execute(
                "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
                " WHERE connamespace = 'public'::regnamespace AND conname NOT LIKE 'alembic%' ORDER BY conname"
            ).fetchall(),
        }
