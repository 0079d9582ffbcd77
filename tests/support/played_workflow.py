"""A workflow on the stage, whose container the test plays: what it calls, asks and waits for is said by the test."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flow_platform.domain.execution import Execution
from flow_platform.domain.principal import Principal
from flow_sdk.wire.durable import (
    SUSPENDED,
    CheckpointDocument,
    CheckpointRequest,
    SentDocument,
    StepResult,
    SuspensionDocument,
    SuspensionRequest,
)
from flow_sdk.wire.runner import Assignment
from flow_sdk.wire.status import Kind, Status
from tests.support.eventually import eventually
from tests.support.stage import Stage

LOST = {"code": "process_crashed", "message": "signal 9"}


class Workflow:
    """A running workflow whose container the test plays; `lose` kills it and begins the next attempt."""

    def __init__(self, stage: Stage, assignment: Assignment) -> None:
        self.stage = stage
        self.assignment = assignment
        self.id = assignment.execution_id
        self.waiting: list[Assignment] = []  # Of children, that came with the workflow's own.

    @classmethod
    async def start(cls, stage: Stage, **component: Any) -> Workflow:
        stage.runner.slots = 500
        await stage.publish("flow", Kind.WORKFLOW, **component)
        await stage.submit("flow", kind=Kind.WORKFLOW)
        [assignment] = await stage.runner.claim()
        return cls(stage, assignment)

    @property
    def inside(self) -> Principal:
        return self.stage.inside(self.assignment)

    async def call(self, input_data: Any, slug: str = "block") -> Execution:
        return await self.stage.submit(slug, principal=self.inside, input_data=input_data)

    async def end_child(self, child: Execution, output: Any = None, error: dict[str, Any] | None = None) -> None:
        assignments = {a.execution_id: a for a in await self.stage.runner.claim()}
        await self.stage.runner.report(assignments[child.id], output, error)
        await self.stage.wait(child.id)

    async def lose(self, error: dict[str, Any] = LOST) -> None:
        await self.end_attempt(error)
        self.stage.clock.advance(timedelta(seconds=3))  # Past the back-off, within the leases.
        await self.next_attempt()

    async def end_attempt(self, error: dict[str, Any]) -> None:
        await self.stage.runner.report(self.assignment, error=error)
        await eventually(lambda: self.stage.get(self.id), lambda document: document.status is not Status.RUNNING)

    async def next_attempt(self) -> None:
        for _ in range(10):
            claimed = await self.stage.runner.claim()
            self.waiting += [a for a in claimed if a.execution_id != self.id]
            if own := [a for a in claimed if a.execution_id == self.id]:
                [self.assignment] = own
                return
        raise AssertionError("the workflow was not handed out again")

    # Checkpoints.

    async def ask(self, kind: str, name: str, **fields: Any) -> CheckpointDocument:
        request = CheckpointRequest.model_validate({"kind": kind, "name": name, **fields})
        return await self.stage.engine.checkpoints.ask(self.inside, *self._here, request)

    async def finish(self, checkpoint_id: str, **result: Any) -> CheckpointDocument:
        body = StepResult.model_validate(result)
        return await self.stage.engine.checkpoints.finish(self.inside, *self._here, checkpoint_id, body)

    async def withdraw(self, checkpoint: CheckpointDocument) -> CheckpointDocument:
        """As the SDK does when the coroutine that waits is cancelled."""
        return await self.stage.engine.checkpoints.withdraw(self.inside, *self._here, checkpoint.checkpoint_id)

    async def may_suspend(self, *checkpoint_ids: str, executions: tuple[str, ...] = ()) -> SuspensionDocument:
        request = SuspensionRequest(details=_details(checkpoint_ids, executions))
        return await self.stage.engine.checkpoints.may_suspend(self.inside, *self._here, request)

    async def suspend(self, *checkpoint_ids: str, executions: tuple[str, ...] = ()) -> None:
        """Ends the attempt as the harness does when the code only waits."""
        await self.end_attempt({"code": SUSPENDED, "details": _details(checkpoint_ids, executions)})

    async def send(self, name: str, payload: Any, by: Principal | None = None, key: str = "") -> SentDocument:
        sender = by or self.stage.admin
        return await self.stage.engine.sent_events.send(sender, *self._here, name, payload, key)

    @property
    def _here(self) -> tuple[str, str, str]:
        return self.stage.org_id, self.stage.workspace_id, self.id


def _details(checkpoint_ids: tuple[str, ...], executions: tuple[str, ...]) -> list[dict[str, str]]:
    return [{"field": "checkpoint_id", "message": one} for one in checkpoint_ids] + [
        {"field": "execution_id", "message": one} for one in executions
    ]
