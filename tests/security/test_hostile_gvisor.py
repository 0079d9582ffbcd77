"""The attempts whose answer depends on what the container is made of, in containers of gVisor.

What the runner or the server holds, whatever the sandbox, is tried once: see `test_hostile_box`. Those that take many
containers are left to `flow doctor --hostile --isolation gvisor`: each is a second of work here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from flow_platform.hostile import escape, exhaustion
from flow_platform.hostile.answer import Answer, Verdict, leaks
from flow_platform.hostile.attempt import Attempt
from flow_platform.hostile.box import Box
from flow_platform.hostile.canaries import Canaries
from flow_platform.hostile.own_kernel import HARMLESS, judge
from flow_platform.hostile.suite import box_around
from flow_platform.sandbox.gvisor.sandbox import GvisorSandbox
from tests.support.runsc import needs_runsc
from tests.support.sandbox_cache import sandbox_cache

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

SHORT = {"processes", "memory", "disk", "processor time"}
ATTEMPTS = (*escape.ATTEMPTS, *(attempt for attempt in exhaustion.ATTEMPTS if attempt.name in SHORT))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gvisor_box(canaries: Canaries) -> AsyncIterator[Box]:
    async with box_around(GvisorSandbox(sandbox_cache(), pool_size=2), canaries) as opened:
        yield opened


@needs_runsc
@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.name)
async def test_is_refused(gvisor_box: Box, attempt: Attempt[Box]) -> None:
    tried = await attempt.answers(gvisor_box)
    assert leaks(tried) == []
    assert {answer.group for answer in tried} == set(attempt.groups)
    assert [answer for answer in tried if answer.verdict is Verdict.WEAK] == []


async def test_only_what_is_named_is_judged_by_its_own_kernel() -> None:
    named, other = next(iter(HARMLESS)), "read the host's file"
    judged = judge([Answer(5, name, Verdict.LEAKED, "OK") for name in (named, other)])
    assert [answer.verdict for answer in judged] == [Verdict.REFUSED, Verdict.LEAKED]
    assert judged[0].how == HARMLESS[named]
