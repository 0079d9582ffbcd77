"""The few things of nats-py that need care: loose types, and a flush that overtakes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription


async def subscribe(
    client: Client, subject: str, callback: Callable[[Msg], Awaitable[None]], queue: str = ""
) -> Subscription:
    """Subscribes; the callback must be a coroutine function, and gets one message after the other."""
    return await client.subscribe(subject, queue=queue, cb=callback)  # pyright: ignore[reportUnknownMemberType]


async def settle(client: Client) -> None:
    """Returns when the server has processed everything that was sent before.

    nats-py's `flush` writes its PING past the buffer of commands that wait to be written: alone, it proves nothing
    about a subscription made just before. So the buffer is emptied first.
    """
    while client.is_connected and client.pending_data_size:  # noqa: ASYNC110 - nothing tells when it is empty.
        await asyncio.sleep(0)
    await client.flush()


async def close(client: Client) -> None:
    """Closes without waiting for anything to be written.

    On a broken connection nats-py's `close` would fail over what is left to write, and leave its tasks behind.
    """
    if client.is_closed:
        return
    client._pending = []  # noqa: SLF001
    client._pending_data_size = 0  # noqa: SLF001
    with contextlib.suppress(OSError, nats.errors.Error):
        await client.close()
