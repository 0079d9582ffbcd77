"""The one place where nats-py's loosely typed calls are given types."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription


async def subscribe(
    client: Client, subject: str, callback: Callable[[Msg], Awaitable[None]], queue: str = ""
) -> Subscription:
    """Subscribes; the callback must be a coroutine function, and gets one message after the other."""
    return await client.subscribe(subject, queue=queue, cb=callback)  # pyright: ignore[reportUnknownMemberType]
