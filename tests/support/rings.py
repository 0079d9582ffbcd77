"""Rings and deployments of a stage, in the words of a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flow_platform.domain.principal import Principal
from flow_platform.domain.release import Deployment, DeploymentState
from flow_platform.engine.rollout_watch import RolloutWatch
from flow_platform.engine.rollouts import RingChange, goes_on_by_itself
from flow_sdk.wire.runner import Assignment
from flow_sdk.wire.status import Kind
from tests.support.eventually import eventually
from tests.support.stage import Stage

BROKEN = {"code": "component_error", "type": "ValueError", "message": "no", "retryable": True}


class Rings:
    """The component is the code block `block` where none is named."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.ids: dict[str, str] = {}

    async def open(self) -> Rings:
        self.ids = {ring.name: ring.id for ring in await self.stage.engine.releases.rings(*self._who)}
        return self

    @property
    def _who(self) -> tuple[Principal, str, str]:
        return self.stage.admin, self.stage.org_id, self.stage.workspace_id

    async def publish(self, content: str, slug: str = "block", **fields: Any) -> None:
        await self.stage.publish(slug, code=f"def main(): return {content!r}", **fields)

    async def current(self, ring: str, slug: str = "block") -> list[Deployment]:
        def operation(tx: Any) -> list[Deployment]:
            component = tx.catalog.find_component(self.stage.org_id, self.stage.workspace_id, Kind.CODE_BLOCK, slug)
            return tx.rollouts.current(component.id, self.ids[ring])

        return await self.stage.engine.store.read(operation)

    async def active(self, ring: str, slug: str = "block") -> Deployment:
        (found,) = [one for one in await self.current(ring, slug) if one.state is DeploymentState.ACTIVE]
        return found

    async def wait_active(self, ring: str, version: int, slug: str = "block") -> Deployment:
        async def look() -> list[Deployment]:
            return [one for one in await self.current(ring, slug) if one.state is DeploymentState.ACTIVE]

        return (await eventually(look, lambda found: [one.version for one in found] == [version]))[0]

    async def get(self, deployment: Deployment) -> Deployment:
        return await self.get_by_id(deployment.id)

    async def get_by_id(self, deployment_id: str) -> Deployment:
        return await self.stage.engine.releases.get_deployment(*self._who, deployment_id)

    async def until(self, deployment_id: str, accept: Callable[[Deployment], bool]) -> Deployment:
        return await eventually(lambda: self.get_by_id(deployment_id), accept)

    async def settled(self, deployment_id: str) -> Deployment:
        return await self.until(deployment_id, lambda found: not goes_on_by_itself(found))

    async def wait(self, deployment_id: str, seconds: float) -> Deployment:
        return await self.stage.engine.rollouts.wait(*self._who, deployment_id, seconds)

    async def deploy(self, ring: str, slug: str = "block", **fields: Any) -> tuple[Deployment, bool]:
        return await self.stage.engine.rollouts.deploy(*self._who, slug, self.ids[ring], **fields)

    async def promote(self, *what: Deployment | str, share: int = 0) -> list[Deployment]:
        """Deployments, and at the end the name of the ring, if it is not the next one."""
        ids = [one.id for one in what if isinstance(one, Deployment)]
        ring = next((self.ids[one] for one in what if isinstance(one, str)), None)
        return await self.stage.engine.rollouts.promote(*self._who, ids, ring, share)

    async def approve(self, deployment: Deployment, principal: Principal | None = None) -> Deployment:
        who = principal or self.stage.admin
        return await self.stage.engine.rollouts.approve(who, *self._who[1:], deployment.id)

    async def share(self, deployment: Deployment, share: int) -> Deployment:
        return await self.stage.engine.rollouts.share(*self._who, deployment.id, share)

    async def roll_back(self, deployment: Deployment, reason: str = "") -> Deployment:
        return await self.stage.engine.rollouts.roll_back(*self._who, deployment.id, reason)

    async def change_ring(self, ring: str, **fields: Any) -> None:
        await self.stage.engine.rollouts.change_ring(*self._who, self.ids[ring], RingChange(fields))

    async def look(self) -> None:
        """What the watch does by itself every few seconds."""
        engine = self.stage.engine
        await RolloutWatch(engine.store, engine.clock, engine._wakeups, engine.rollouts).look()

    async def crash_watch(self) -> None:
        """From now on this engine looks after no deployment."""
        for task in self.stage.engine._tasks:
            if task.get_name() == "rollouts":
                task.cancel()

    async def assignments(self, count: int) -> list[Assignment]:
        found: list[Assignment] = []
        while len(found) < count:
            claimed = await self.stage.runner.claim()
            assert claimed, f"{len(found)} of {count}"
            found += claimed
        return found

    async def run(self, good: int, bad: int, ring: str = "dev") -> None:
        """Executions that end well and not."""
        ends = [None] * good + [BROKEN] * bad
        made = {(await self.stage.submit(ring_id=self.ids[ring])).id: end for end in ends}
        for assignment in await self.assignments(len(ends)):
            await self.stage.runner.report(assignment, error=made[assignment.execution_id])
        for execution_id in made:
            await self.stage.wait(execution_id)
