"""The store: the record of everything. `base` is the port; `open_store` gives the adapter for a URL."""

from __future__ import annotations

from typing import Final

from flow_platform.domain import errors
from flow_platform.store.base import Store

__all__ = ["open_store"]

_SQLITE: Final = "sqlite:///"
_POSTGRESQL: Final = ("postgresql://", "postgres://")


def open_store(url: str) -> Store:
    """Makes the store for `sqlite:///path` or `postgresql://...` (a libpq URL). Its `open` connects.

    Raises:
        SettingsError: The URL is neither.
    """
    # Imported here, so that who only needs the port pays for neither SQLAlchemy nor a driver.
    if url.startswith(_SQLITE) and len(url) > len(_SQLITE) and "\0" not in url:
        from flow_platform.store.sql_store import SqlStore
        from flow_platform.store.sqlite import SqliteDatabase

        return SqlStore(SqliteDatabase(url.removeprefix(_SQLITE)))
    if url.startswith(_POSTGRESQL):
        from flow_platform.store.postgresql import PostgresqlDatabase
        from flow_platform.store.sql_store import SqlStore

        return SqlStore(PostgresqlDatabase(url))
    # Only the scheme is shown: the rest may hold a password.
    raise errors.SettingsError(
        f"database URL {url.split('//')[0] + '//...'!r} is not known: expected 'sqlite:///path' or 'postgresql://...'"
    )
