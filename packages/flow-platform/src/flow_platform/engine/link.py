"""The engine's end of NATS. It may be away for a while: the database is the record, so the engine works on without it.

Requests of runners, reports and wake-ups flow while the link is up. What cannot be sent meanwhile is either repeated by
somebody (cancel notices by the heartbeat, wake-ups by looking again) or refused with `bus_unavailable` (builds).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from flow_platform.bus.connection import Bus
from flow_platform.domain import errors

logger = logging.getLogger(__name__)

RECONNECT_SECONDS: Final = 0.25

OnConnect = Callable[[Bus], Awaitable[None]]


class Link:
    """Connects in the background and keeps trying.

    Args:
        nats_url: With credentials.
        name: Shown in the server's connection list.
    """

    def __init__(self, nats_url: str, name: str) -> None:
        self._nats_url = nats_url
        self._name = name
        self._bus: Bus | None = None
        self._sending: set[asyncio.Task[None]] = set()

    @property
    def is_up(self) -> bool:
        return self._bus is not None and self._bus.is_connected

    async def connect(self, on_connect: OnConnect) -> None:
        """Connects, however long it takes, then lets the caller attach its handlers."""
        while True:
            try:
                bus = await self._open()
                break
            except errors.BusUnavailable as error:
                task = asyncio.current_task()
                if task is not None and task.cancelling():  # nats-py takes a cancel for one more failure to connect.
                    raise asyncio.CancelledError from error
                logger.info("NATS is not there yet: %s", error)
                await asyncio.sleep(RECONNECT_SECONDS)
        self._bus = bus
        await on_connect(bus)

    async def _open(self) -> Bus:
        bus = await Bus.connect(self._nats_url, name=self._name)
        try:
            await bus.ensure_streams()
        except errors.BusUnavailable:
            await bus.drain_and_close()
            raise
        return bus

    def publish(self, subject: str, body: bytes) -> None:
        """Sends without waiting and without promise."""
        if self._bus is not None:
            self._spawn(self._bus.publish_core(subject, body))

    async def request(self, subject: str, body: bytes, timeout_seconds: float) -> bytes:
        return await self._connected().request(subject, body, timeout=timeout_seconds)

    async def put_object(self, name: str, body: bytes) -> None:
        await self._connected().put_object(name, body)

    async def get_object(self, name: str) -> bytes:
        return await self._connected().get_object(name)

    async def close(self) -> None:
        if self._bus is not None:
            await self._bus.drain_and_close()

    def _connected(self) -> Bus:
        if self._bus is None:
            raise errors.BusUnavailable("NATS is not connected", hint="it is tried again by itself; try later")
        return self._bus

    def _spawn(self, sending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(sending)
        self._sending.add(task)
        task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.info("a message was not sent: %s", error)
