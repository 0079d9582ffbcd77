"""Publishing while the world changes: builds that fail, overlap, or find the version made meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flow_platform.domain import errors
from flow_platform.domain.clock import ManualClock
from flow_platform.domain.principal import Principal, Role
from flow_platform.engine.catalog import Catalog, Published
from flow_platform.engine.first_start import ensure_first_tenant
from flow_platform.engine.publish_request import PublishRequest
from flow_platform.engine.validation import parse_model
from flow_platform.store import open_store
from flow_platform.store.base import Store, Workspace
from flow_sdk.wire.runner import BuildReply, BuildRequest, EnvironmentRef
from flow_sdk.wire.status import Kind
from tests.support.rollouts_alone import rollouts_over


class Bench:
    """A catalog whose builds wait until they are let go."""

    def __init__(self, store: Store, workspace: Workspace) -> None:
        self.store = store
        self.workspace = workspace
        self.builds = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None
        self.catalog = Catalog(store, ManualClock(), self.build, rollouts_over(store, ManualClock()))

    async def build(self, request: BuildRequest) -> BuildReply:
        self.builds += 1
        await self.gate.wait()
        if self.failure:
            raise self.failure
        environment = EnvironmentRef(digest="d" * 64, lock="requests==2.32.3\n")
        return BuildReply(environment=environment, description="x" * 20_000)

    async def publish(self, code: str, kind: Kind = Kind.CODE_BLOCK, role: Role = Role.BUILDER) -> Published:
        principal = Principal("ada", self.workspace.org_id, role)
        request = parse_model(PublishRequest, {"slug": "echo", "code": code})
        where = self.workspace.org_id, self.workspace.workspace_id
        return await self.catalog.publish(principal, *where, kind, request)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    store = open_store(f"sqlite:///{tmp_path / 'flow.db'}")
    await store.open()
    yield Bench(store, await ensure_first_tenant(store, ManualClock()))
    await store.close()


async def test_known_content_is_not_built_again(bench: Bench) -> None:
    first = await bench.publish("def main(): ...")
    again = await bench.publish("def main(): ...")
    assert (first.is_new, again.is_new, bench.builds) == (True, False, 1)
    assert again.version == first.version
    assert first.version.environment.lock == "requests==2.32.3\n"
    assert len(first.component.description) == 10_000


async def test_two_publishes_of_the_same_content_at_once_are_one_version(bench: Bench) -> None:
    bench.gate.clear()
    both = [asyncio.create_task(bench.publish("def main(): ...")) for _ in range(2)]
    async with asyncio.timeout(5):
        while bench.builds < 2:  # noqa: ASYNC110 - counted by the fake build.
            await asyncio.sleep(0.001)
    bench.gate.set()
    one, other = await asyncio.gather(*both)
    assert one.version == other.version
    assert {one.is_new, other.is_new} == {True, False}


async def test_a_build_that_cannot_be_asked_for_leaves_nothing(bench: Bench) -> None:
    bench.failure = errors.BusUnavailable("no runner")
    with pytest.raises(errors.BusUnavailable):
        await bench.publish("def main(): ...")
    bench.failure = None
    assert (await bench.publish("def main(): ...")).version.number == 1


async def test_kinds_and_roles(bench: Bench) -> None:
    code_block = await bench.publish("def main(): ...")
    workflow = await bench.publish("def main(): ...", Kind.WORKFLOW)
    assert code_block.component.id != workflow.component.id
    assert code_block.version.digest != workflow.version.digest
    for role in (Role.VIEWER, Role.RUNNER, Role.EXECUTION):
        with pytest.raises(errors.Forbidden):
            await bench.publish("def main(): ...", role=role)
    assert bench.builds == 2
