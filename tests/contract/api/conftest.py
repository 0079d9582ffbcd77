"""Fixtures of the API's contract tests; see `hands`."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from flow_platform.api.app import create_app
from flow_platform.domain.release import BUILT_IN_RINGS, Ring
from flow_platform.engine.catalog import Catalog
from flow_platform.engine.service import Engine
from flow_platform.store import open_store
from flow_platform.store.base import Workspace
from tests.contract.api.hands import NO_NATS, Builds, Platform, Tenant


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:
    path = tmp_path_factory.mktemp("store") / "flow.db"
    engine = Engine(open_store(f"sqlite:///{path}"), NO_NATS)
    await engine.start()
    builds = Builds()
    engine.catalog = Catalog(engine.store, engine.clock, builds, engine.rollouts)
    yield Platform(engine, builds, create_app(engine))
    await engine.stop()


@pytest.fixture
def new_tenant(platform: Platform) -> Callable[[], Awaitable[Tenant]]:
    async def make() -> Tenant:
        workspace = Workspace(str(uuid.uuid4()), str(uuid.uuid4()), "test")
        now = platform.now
        rings = [
            Ring(str(uuid.uuid4()), workspace.org_id, workspace.workspace_id, name, order, auto_deploy, now)
            for name, order, auto_deploy in BUILT_IN_RINGS
        ]

        def operation(tx: Any) -> None:
            tx.tenancy.insert_organization(workspace.org_id, "test", now)
            tx.tenancy.insert_workspace(workspace, now)
            for ring in rings:
                tx.catalog.insert_ring(ring)

        await platform.engine.store.write(operation)
        return Tenant(platform, workspace, {ring.name: ring.id for ring in rings})

    return make


@pytest_asyncio.fixture(loop_scope="module")
async def tenant(new_tenant: Callable[[], Awaitable[Tenant]]) -> Tenant:
    return await new_tenant()


@pytest_asyncio.fixture(loop_scope="module")
async def other(new_tenant: Callable[[], Awaitable[Tenant]]) -> Tenant:
    return await new_tenant()
