"""All attempts, and how to try them at one sandbox or one platform."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from flow_platform.hostile import borders, canaries, escape, exhaustion, frames, neighbours, supply, ways_out
from flow_platform.hostile.answer import Answer
from flow_platform.hostile.attempt import Attempt
from flow_platform.hostile.box import Box
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


@asynccontextmanager
async def box_around(sandbox: Sandbox) -> AsyncGenerator[Box]:
    """Plants canaries around an open sandbox."""
    weak = frozenset(check.name for check in await sandbox.check() if check.level == "weak")
    with canaries.planted() as planted:
        yield Box(sandbox, planted, weak)


async def try_all(attempts: Sequence[Attempt[Place]], place: Place, at_once: int) -> list[Answer]:
    """Tries them, so many at the same time; the answers come in the order of the attempts."""
    room = asyncio.Semaphore(at_once)

    async def one(attempt: Attempt[Place]) -> list[Answer]:
        async with room:
            return await attempt.answers(place)

    found = await asyncio.gather(*(one(attempt) for attempt in attempts))
    return [answer for answers in found for answer in answers]
