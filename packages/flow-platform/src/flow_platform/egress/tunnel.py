"""Bytes both ways between two connections, counted, until both directions have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from flow_platform.egress.client_hello import HelloGate
from flow_platform.egress.traffic import CHUNK_BYTES, IdleTimer, Meter, Record

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def carry(
    inner: Streams, outer: Streams, gate: HelloGate, meter: Meter, record: Record, idle: IdleTimer, early: bytes
) -> None:
    """Returns when both sides have said their last word.

    Args:
        early: What the client sent already.

    Raises:
        Refusal: A limit on bytes was reached, or the gate refuses what the client says.
        OSError: A side broke off.
    """

    def outward(data: bytes) -> bytes:
        passed = gate.pass_on(data)
        meter.sent(record, len(passed))
        return passed

    def inward(data: bytes) -> bytes:
        meter.received(record, len(data))
        return data

    if early:
        outer[1].write(outward(early))
    await both(_copy(inner[0], outer[1], outward, idle), _copy(outer[0], inner[1], inward, idle))


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
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pass_on: Callable[[bytes], bytes], idle: IdleTimer
) -> None:
    while data := await reader.read(CHUNK_BYTES):
        idle.touch()
        writer.write(pass_on(data))
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
