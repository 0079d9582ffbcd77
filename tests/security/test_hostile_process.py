"""Plain processes: what is not promised of them is said and not tried; what is held outside of them is held."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from flow_platform.hostile.answer import Answer, Verdict, leaks
from flow_platform.hostile.attempt import Attempt
from flow_platform.hostile.box import Box
from flow_platform.hostile.canaries import Canaries
from flow_platform.hostile.groups import ELSEWHERE, GROUPS
from flow_platform.hostile.report import rows
from flow_platform.hostile.rungs import NOT_PROMISED, promised
from flow_platform.hostile.suite import BOX_ATTEMPTS, WORLD_ATTEMPTS, box_around
from flow_platform.sandbox.process.sandbox import ProcessSandbox
from flow_sdk.wire.isolation import Isolation
from tests.support.sandbox_cache import sandbox_cache

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

EVERYWHERE_THE_SAME = {"results and events", "fuzz the harness's socket"}
"""Held by the reader of frames and the harness: tried once, see `test_hostile_box`. The command tries all."""

ATTEMPTS = [one for one in promised(BOX_ATTEMPTS, Isolation.PROCESS) if one.name not in EVERYWHERE_THE_SAME]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def process_box(canaries: Canaries) -> AsyncIterator[Box]:
    async with box_around(ProcessSandbox(sandbox_cache(), allowed=True), canaries) as opened:
        yield opened


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.name)
async def test_what_is_held_outside_is_refused(process_box: Box, attempt: Attempt[Box]) -> None:
    tried = await attempt.answers(process_box)
    assert leaks(tried) == []
    assert {answer.group for answer in tried} == set(attempt.groups)


async def test_what_is_not_promised_is_never_tried_and_never_counted() -> None:
    excused = NOT_PROMISED[Isolation.PROCESS]
    tried = {
        group
        for attempts in (promised(BOX_ATTEMPTS, Isolation.PROCESS), promised(WORLD_ATTEMPTS, Isolation.PROCESS))
        for attempt in attempts
        for group in attempt.groups
    }
    assert tried | excused.keys() | ELSEWHERE.keys() == GROUPS.keys()
    assert not tried & excused.keys()
    assert {1, 3, 10, 11, 24, 30, 31, 32, 37} <= excused.keys()

    passed = [Answer(group, "tried", Verdict.REFUSED, "refused") for group in GROUPS]
    table = rows(passed, Isolation.PROCESS)
    assert {row.group for row in table if row.verdict == "not promised"} == excused.keys()
    assert all(row.how.startswith("not promised:") for row in table if row.group in excused)


@pytest.mark.parametrize("isolation", [Isolation.NAMESPACES, Isolation.DOCKER, Isolation.GVISOR])
async def test_every_other_rung_promises_everything(isolation: Isolation) -> None:
    assert NOT_PROMISED[isolation] == {}
    assert promised(BOX_ATTEMPTS, isolation) == list(BOX_ATTEMPTS)
