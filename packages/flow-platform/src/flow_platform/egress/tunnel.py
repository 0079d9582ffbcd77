"""Bytes both ways between two connections, counted, until both directions have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from flow_platform.egress.traffic import CHUNK_BYTES, IdleTimer, Meter, Record

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def carry(inner: Streams, outer: Streams, meter: Meter, record: Record, idle: IdleTimer) -> None:
    """Returns when both sides have said their last word.

    Raises:
        Refusal: A limit on bytes was reached.
        OSError: A side broke off.
    """
    await both(
        _copy(inner[0], outer[1], lambda size: meter.sent(record, size), idle),
        _copy(outer[0], inner[1], lambda size: meter.received(record, size), idle),
    )


async def both(first: Coroutine[Any, Any, None], second: Coroutine[Any, Any, None]) -> None:
    """Runs two directions; when one fails, the other is cancelled and the failure raised."""
    tasks = [asyncio.create_task(work) for work in (first, second)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: Callable[[int], None], idle: IdleTimer
) -> None:
    while data := await reader.read(CHUNK_BYTES):
        idle.touch()
        count(len(data))
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
