"""The platform's end of the client's NATS methods: what it would publish and read, on a real nats-server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from nats.aio.client import Client
from nats.js import JetStreamContext

from flow_sdk import PlatformClient

MakeClient = Callable[..., PlatformClient]


@dataclass
class Platform:
    """The other end: what the platform would publish and read."""

    connection: Client
    jetstream: JetStreamContext

    async def put_input(self, execution_id: str, content: bytes | dict[str, Any]) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        await self.jetstream.publish(f"exec.input.{execution_id}", body)

    async def messages(self, kind: str, execution_id: str) -> list[bytes]:
        """Everything in the stream for one execution."""
        subject = f"exec.{kind}.{execution_id}"
        info = await self.jetstream.stream_info(f"EXEC_{kind.upper()}", subjects_filter=subject)
        count = (info.state.subjects or {}).get(subject, 0)
        subscription = await self.jetstream.subscribe(subject, ordered_consumer=True)
        found = [await subscription.next_msg(timeout=60) for _ in range(count)]
        await subscription.unsubscribe()
        return [message.data for message in found]

    async def consumers(self) -> int:
        return (await self.jetstream.stream_info("EXEC_INPUT")).state.consumer_count

    async def is_fetched_from(self, before: int) -> bool:
        """Whether there are more consumers of inputs than before."""
        return await self.consumers() > before

    async def is_taken(self, execution_id: str) -> bool:
        """Whether the input was acknowledged, so that the work queue forgot it."""
        subject = f"exec.input.{execution_id}"
        info = await self.jetstream.stream_info("EXEC_INPUT", subjects_filter=subject)
        return not info.state.subjects


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110 - it is in another process.
            await asyncio.sleep(0.01)
