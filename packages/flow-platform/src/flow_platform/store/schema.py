"""Brings a database's schema to today's.

The version that the database is at is one row. It is read first, and only when it is not today's is Alembic imported
and run: start-up time counts, and nearly every start finds nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from flow_platform.domain import errors
from flow_platform.store.query import DialectName

HEAD: Final = "0017"
"""The newest revision of `migrations/versions`; a test holds it there."""

_LOCK_KEY: Final = 0x466C6F77  # "Flow": of the advisory lock that lets one process at a time migrate.


def current_version(execute: Callable[[Any], Any], is_missing_table: Callable[[Exception], bool]) -> str | None:
    """The revision that the database is at; None for a database without our tables."""
    try:
        row = execute("SELECT version_num FROM alembic_version").fetchone()
    except Exception as exc:
        if is_missing_table(exc):
            return None
        raise
    return row[0] if row else None


def upgrade(dialect: DialectName, connect: Callable[[], Any]) -> None:
    """Runs the missing migrations in one transaction. Several processes may do it at once; one of them will.

    Raises:
        StoreUnavailable: The database was made by a newer program, or refused a statement; it is as it was.
    """
    import sqlalchemy as sa
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError
    from sqlalchemy import event
    from sqlalchemy.exc import DBAPIError

    engine = sa.create_engine(
        "sqlite://" if dialect == "sqlite" else "postgresql+psycopg://", creator=connect, poolclass=sa.NullPool
    )
    # The drivers' connections are in autocommit mode, so that each of our transactions says itself how it begins.
    begin = "BEGIN IMMEDIATE" if dialect == "sqlite" else "BEGIN"

    def say_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "begin", say_begin)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    try:
        with engine.begin() as connection:
            if dialect == "postgresql":
                # A migration of a large table may take longer than any query should.
                connection.exec_driver_sql("SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0")
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK_KEY})")
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as exc:
        raise errors.StoreUnavailable(
            f"the schema of the database is not one this program knows: {exc}",
            hint="a newer version of Flow wrote it; use that one, or restore a backup",
        ) from exc
    except DBAPIError as exc:
        if exc.orig is None:
            raise
        raise exc.orig from exc  # Which the driver's own file translates.
    finally:
        engine.dispose()
