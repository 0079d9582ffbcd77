"""The SDK's side of a played workflow: its calls go through `flow_sdk.ahead` to the engine, as they do over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

from flow_sdk.ahead import CHECKPOINT, Ahead
from flow_sdk.wire.durable import CheckpointRequest
from flow_sdk.wire.replay import Told, checkpoint_key, content_of, parse
from flow_sdk.wire.status import Kind
from tests.support.played_workflow import Workflow


class HarnessCalls:
    """Of one attempt of a workflow.

    Attributes:
        told: What was said with each request.
    """

    def __init__(self, workflow: Workflow) -> None:
        self.workflow = workflow
        self.stage = workflow.stage
        self.inside = workflow.inside
        attempt = workflow.assignment.attempt
        self.ahead = Ahead(asyncio.get_running_loop(), is_expected=True if attempt > 1 else None)
        self.told: list[Told] = []
        self.asked: dict[str, int] = {}

    async def call(self, input_data: Any, named: str = "block", kind: Kind = Kind.CODE_BLOCK) -> dict[str, Any]:
        """The handle; with `execution`, the document, when it has ended."""

        async def send(text: str) -> dict[str, Any]:
            told = await self._tell(text)
            fields = {"kind": kind, "input_data": input_data, "occurrence": told.occurrence}
            execution = await self.stage.submit(named, self.inside, **fields)
            answer: dict[str, Any] = {"execution_id": execution.id, "status": execution.status.value}
            if execution.status.is_terminal:
                document = await self.stage.engine.executions.ended(execution)
                answer["execution"] = document.model_dump(mode="json")
            return answer | await self._ahead(told)

        def given(document: dict[str, Any]) -> dict[str, Any]:
            return {name: document[name] for name in ("execution_id", "status")} | {"execution": document}

        return await self.ahead.answer(kind.value, named, content_of(input_data, {}, [], {}), send, given)

    async def ids(self, *inputs: Any) -> list[str]:
        """Calls with these inputs, one after the other."""
        return [(await self.call(one))["execution_id"] for one in inputs]

    async def ask(self, kind: str, name: str, **fields: Any) -> dict[str, Any]:
        number = self.asked.get(f"{kind} {name}", 0)
        self.asked[f"{kind} {name}"] = number + 1
        request = CheckpointRequest.model_validate({"kind": kind, "name": name, "occurrence": number, **fields})

        async def send(text: str) -> dict[str, Any]:
            told = await self._tell(text)
            here = self.stage.org_id, self.stage.workspace_id, self.workflow.id
            document = await self.stage.engine.checkpoints.ask(self.inside, *here, request)
            return document.model_dump(mode="json") | await self._ahead(told)

        key = checkpoint_key(request.kind.value, name, request.seconds)
        return await self.ahead.answer(CHECKPOINT, "", key, send, lambda document: document, occurrence=number)

    async def end(self) -> None:
        """As the harness does before it hands over the result."""
        await self.ahead.settle(self._tell)

    async def _tell(self, text: str) -> Told:
        told = parse(text)
        self.told.append(told)
        await self.stage.engine.ahead.note(self.inside, told)
        return told

    async def _ahead(self, told: Told) -> dict[str, Any]:
        if told.after is None:
            return {}
        document = await self.stage.engine.ahead.calls(self.inside, told.after)
        return {"ahead": document.model_dump(mode="json")}
