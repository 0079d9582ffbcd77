"""The store over a SQL database: a writer and readers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from flow_platform.domain import errors
from flow_platform.store.base import Transaction
from flow_platform.store.connection import Connection, Database
from flow_platform.store.group_commit import GroupCommit
from flow_platform.store.policy_cache import PolicyCache
from flow_platform.store.readers import Readers
from flow_platform.store.transaction import SqlTransaction
from flow_platform.store.version_cache import VersionCache

T = TypeVar("T")


class SqlStore:
    """Implements `base.Store`. After `close` it stays closed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        policies, versions = PolicyCache(), VersionCache()

        def transaction(connection: Connection) -> Transaction:
            return SqlTransaction(connection, policies, versions)

        self._writer = GroupCommit(database, transaction)
        self._readers = Readers(database, transaction)
        self._is_open = False

    @property
    def is_shared(self) -> bool:
        return self._database.dialect != "sqlite"

    async def open(self) -> None:
        await asyncio.to_thread(self._open)

    async def write(self, operation: Callable[[Transaction], T]) -> T:
        self._require_open()
        return await self._writer.submit(operation)

    async def read(self, operation: Callable[[Transaction], T]) -> T:
        self._require_open()
        return await self._readers.run(operation)

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    def _open(self) -> None:
        self._database.prepare()
        self._writer.start()
        self._is_open = True

    def _close(self) -> None:
        self._writer.close()
        self._readers.close()

    def _require_open(self) -> None:
        if not self._is_open:
            raise errors.StoreUnavailable("the store is not open yet")
