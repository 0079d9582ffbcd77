"""The engine on a stage: a clock that the test moves, a runner that it scripts, everything else real."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flow_platform.bus.server import NatsServer
from flow_platform.domain.clock import ManualClock
from flow_platform.domain.execution import Execution
from flow_platform.domain.principal import Principal, Role
from flow_platform.engine.accept import Submission
from flow_platform.engine.publish_request import PublishRequest
from flow_platform.engine.service import Engine
from flow_sdk.wire.execution import StatusDocument
from flow_sdk.wire.runner import Assignment
from flow_sdk.wire.status import Kind
from tests.support.eventually import eventually
from tests.support.scripted_runner import ScriptedRunner


def keep_leases(engine: Engine) -> None:
    """Lets leases run out only when the test sweeps.

    The sweeper itself begins to take them ten seconds after the start. Then a test whose clock has passed them would
    lose its attempts, but only on a machine on which it takes that long.
    """
    for task in engine._tasks:
        if task.get_name() == "sweeper":
            task.cancel()
    engine._spawn("sweeper", engine.sweeper.run(engine.leasing.lease, lambda: False))


@dataclass
class Stage:
    """What a test needs of the platform.

    Attributes:
        claimed: Assignments that came with others and were not asked for by `claim` yet.
    """

    engine: Engine
    clock: ManualClock
    nats: NatsServer
    runner: ScriptedRunner
    claimed: dict[str, Assignment] = field(default_factory=dict[str, Assignment])

    @property
    def org_id(self) -> str:
        return self.engine.workspace.org_id

    @property
    def workspace_id(self) -> str:
        return self.engine.workspace.workspace_id

    @property
    def admin(self) -> Principal:
        return Principal("admin", self.org_id, Role.ADMIN, self.workspace_id)

    async def publish(self, slug: str = "block", kind: Kind = Kind.CODE_BLOCK, **fields: Any) -> None:
        request = PublishRequest.model_validate({"slug": slug, "code": "def main(): ...", **fields})
        await self.engine.catalog.publish(self.admin, self.org_id, self.workspace_id, kind, request)

    async def submit(self, slug: str = "block", principal: Principal | None = None, **fields: Any) -> Execution:
        submission = Submission(**{"kind": Kind.CODE_BLOCK, "component": slug, "input_data": {}, **fields})
        return await self.engine.submitter.submit(
            principal or self.admin, self.org_id, self.workspace_id, submission, None
        )

    async def get(self, execution_id: str) -> StatusDocument:
        return await self.engine.executions.get(self.admin, self.org_id, self.workspace_id, execution_id)

    async def wait(self, execution_id: str, seconds: float = 60) -> StatusDocument:
        return await self.engine.executions.wait(self.admin, self.org_id, self.workspace_id, execution_id, seconds)

    async def cancel(self, execution_id: str) -> StatusDocument:
        return await self.engine.executions.cancel(self.admin, self.org_id, self.workspace_id, execution_id)

    async def claim(self, execution_id: str) -> Assignment:
        """The assignment of that execution, however many others are handed out before."""

        async def ask() -> Assignment | None:
            if execution_id not in self.claimed:
                came = await self.runner.claim(0.1)
                self.claimed.update((assignment.execution_id, assignment) for assignment in came)
            return self.claimed.pop(execution_id, None)

        assignment = await eventually(ask, bool)
        assert assignment is not None
        return assignment

    async def end(self, assignment: Assignment, output: Any = None, error: dict[str, Any] | None = None) -> None:
        """Ends the attempt, and with it the execution."""
        await self.runner.report(assignment, output, error)
        ended = await self.wait(assignment.execution_id)
        assert ended.status.is_terminal, ended

    def inside(self, assignment: Assignment) -> Principal:
        """Who the container of that attempt is."""
        return self.engine.tokens.verify(assignment.token, self.clock.now())
