"""An engine without NATS and without runners: what it accepts stays queued. For what the engine does by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from flow_platform.domain.clock import Clock
from flow_platform.domain.principal import Principal, Role
from flow_platform.engine.catalog import Catalog
from flow_platform.engine.publish_request import PublishRequest
from flow_platform.engine.service import Engine
from flow_platform.store import open_store
from flow_platform.store.base import ExecutionFilter
from flow_sdk.wire.execution import StatusDocument
from flow_sdk.wire.runner import BuildReply, BuildRequest
from flow_sdk.wire.status import Kind

NO_NATS = "nats://127.0.0.1:1"


@dataclass
class LoneEngine:
    engine: Engine
    clock: Clock

    @property
    def who(self) -> tuple[Principal, str, str]:
        """The first arguments of the engine's services."""
        org_id, workspace_id = self.engine.workspace.org_id, self.engine.workspace.workspace_id
        return Principal("admin", org_id, Role.ADMIN, workspace_id), org_id, workspace_id

    async def publish(self, slug: str = "block") -> None:
        request = PublishRequest.model_validate({"slug": slug, "code": "def main(): ..."})
        await self.engine.catalog.publish(*self.who, Kind.CODE_BLOCK, request)

    async def executions(self) -> list[StatusDocument]:
        return (await self.engine.executions.list(*self.who, ExecutionFilter(), None, 10_000)).items


@asynccontextmanager
async def lone_engine(store_url: str, clock: Clock) -> AsyncIterator[LoneEngine]:
    engine = Engine(open_store(store_url), NO_NATS, clock=clock)
    await engine.start()
    engine.catalog = Catalog(engine.store, clock, _build, engine.rollouts)
    try:
        yield LoneEngine(engine, clock)
    finally:
        await engine.stop()


async def _build(_: BuildRequest) -> BuildReply:
    return BuildReply()
