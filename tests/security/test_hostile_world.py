"""What executions, clients and strangers try against a platform of two organizations: all of it must be refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from flow_platform.cli.embedded import running_platform
from flow_platform.hostile.answer import leaks
from flow_platform.hostile.attempt import Attempt
from flow_platform.hostile.canaries import Canaries
from flow_platform.hostile.suite import WORLD_ATTEMPTS
from flow_platform.hostile.world import World, world_of

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries) -> AsyncIterator[World]:
    folder: Path = tmp_path_factory.mktemp("hostile")
    with running_platform(folder) as document:
        async with world_of(document, folder / "data", canaries) as made:
            yield made


@pytest.mark.parametrize("attempt", WORLD_ATTEMPTS, ids=lambda attempt: attempt.name)
async def test_is_refused(world: World, attempt: Attempt[World]) -> None:
    tried = await attempt.answers(world)
    assert leaks(tried) == []
    assert {answer.group for answer in tried} == set(attempt.groups)
