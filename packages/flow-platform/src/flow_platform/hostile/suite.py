"""All attempts, and how to try them at one sandbox and one platform."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

from flow_platform.hostile import (
    borders,
    escape,
    exhaustion,
    frames,
    front,
    gateway,
    neighbours,
    supply,
    tenants,
    tokens,
    ways_out,
)
from flow_platform.hostile.answer import Answer
from flow_platform.hostile.attempt import Attempt
from flow_platform.hostile.box import Box
from flow_platform.hostile.canaries import Canaries
from flow_platform.hostile.world import World
from flow_platform.sandbox.base import Sandbox

Place = TypeVar("Place")

BOX_ATTEMPTS: Final[tuple[Attempt[Box], ...]] = (
    *escape.ATTEMPTS,
    *neighbours.ATTEMPTS,
    *exhaustion.ATTEMPTS,
    *frames.ATTEMPTS,
    *ways_out.ATTEMPTS,
    *supply.ATTEMPTS,
    *borders.ATTEMPTS,
)
WORLD_ATTEMPTS: Final[tuple[Attempt[World], ...]] = (
    *tenants.ATTEMPTS,
    *tokens.ATTEMPTS,
    *gateway.ATTEMPTS,
    *front.ATTEMPTS,
)
AT_ONCE: Final = 3
"""Attempts at the same time: most wait for something."""


@asynccontextmanager
async def box_around(sandbox: Sandbox, planted: Canaries) -> AsyncGenerator[Box]:
    """Opens a sandbox with canaries around it."""
    with tempfile.TemporaryDirectory(prefix="flow-hostile-") as folder:
        await sandbox.open()
        try:
            weak = frozenset(check.name for check in await sandbox.check() if check.level == "weak")
            yield Box(sandbox, planted, Path(folder), weak)
        finally:
            await sandbox.close()


async def try_all(attempts: Sequence[Attempt[Place]], place: Place, at_once: int = AT_ONCE) -> list[Answer]:
    """Tries them, so many at the same time; the answers come in the order of the attempts."""
    room = asyncio.Semaphore(at_once)

    async def one(attempt: Attempt[Place]) -> list[Answer]:
        async with room:
            return await attempt.answers(place)

    found = await asyncio.gather(*(one(attempt) for attempt in attempts))
    return [answer for answers in found for answer in answers]
