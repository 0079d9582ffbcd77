"""The readers: a few threads with a connection each. No writer blocks them, and they block no writer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from flow_platform.domain import errors
from flow_platform.store.base import Transaction
from flow_platform.store.connection import Connection, Database
from flow_platform.store.failures import ConnectionLost

READERS: Final = 4  # Reads are short; more threads than cores only help while one reads a large payload.

T = TypeVar("T")


class Readers:
    def __init__(self, database: Database, transaction: Callable[[Connection], Transaction]) -> None:
        self._database = database
        self._transaction = transaction
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._idle: list[Connection] = []  # Appending and popping are atomic.
        self._is_closed = False
        self._gate = threading.Lock()

    async def run(self, operation: Callable[[Transaction], T]) -> T:
        with self._gate:
            if self._is_closed:
                raise errors.StoreUnavailable("the store is closed")
            future = self._threads.submit(self._read, operation)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Waits for the reads that have begun."""
        with self._gate:
            self._is_closed = True
        self._threads.shutdown(wait=True)
        while self._idle:
            self._idle.pop().close()

    def _read(self, operation: Callable[[Transaction], T]) -> T:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # Another reader took the last one.
                break
            try:
                return self._read_on(connection, operation)
            except ConnectionLost:
                # It broke while it was idle. The others may have too; a new one tells.
                continue
        return self._read_on(self._database.connect_reader(), operation)

    def _read_on(self, connection: Connection, operation: Callable[[Transaction], T]) -> T:
        is_usable = False
        try:
            connection.begin()
            try:
                return operation(self._transaction(connection))
            finally:
                connection.rollback()
                is_usable = connection.failure is None
        finally:
            if is_usable:
                self._idle.append(connection)
            else:
                connection.close()
