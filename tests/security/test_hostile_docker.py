"""The attempts whose answer depends on what the container is made of, in containers of Docker.

What the runner, its reader of frames or the harness holds, whatever the sandbox, is tried once: see `test_hostile_box`.
`flow doctor --hostile --isolation docker` tries all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from flow_platform.hostile import escape, exhaustion, neighbours, supply
from flow_platform.hostile.answer import Verdict, leaks
from flow_platform.hostile.attempt import Attempt
from flow_platform.hostile.box import Box
from flow_platform.hostile.canaries import Canaries
from flow_platform.hostile.suite import box_around
from flow_platform.sandbox.docker.sandbox import DockerSandbox
from tests.support.docker_daemon import DockerDaemon, docker
from tests.support.sandbox_cache import sandbox_cache

__all__ = ["docker"]

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

EVERYWHERE_THE_SAME = {"results and events", "logs", "code that runs at a build", "bombs in a build"}
ATTEMPTS = tuple(
    attempt
    for attempt in (*escape.ATTEMPTS, *neighbours.ATTEMPTS, *exhaustion.ATTEMPTS, *supply.ATTEMPTS)
    if attempt.name not in EVERYWHERE_THE_SAME
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def docker_box(canaries: Canaries, docker: DockerDaemon) -> AsyncIterator[Box]:
    async with box_around(DockerSandbox(sandbox_cache(), host=docker.host, pool_size=3), canaries) as opened:
        yield opened


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.name)
async def test_is_refused(docker_box: Box, attempt: Attempt[Box]) -> None:
    tried = await attempt.answers(docker_box)
    assert leaks(tried) == []
    assert {answer.group for answer in tried} == set(attempt.groups)
    assert [answer for answer in tried if answer.verdict is Verdict.WEAK] == []
