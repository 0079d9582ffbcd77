"""Plays the nodes of graph workflows: a scripted runner that answers every attempt by a function of node and input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from flow_platform.domain.execution import Execution
from flow_sdk.wire.execution import StatusDocument
from flow_sdk.wire.runner import Assignment
from flow_sdk.wire.status import Kind
from tests.support.stage import Stage

Answer = Callable[[str, Any], Any]
"""Component slug and input -> output; raises `Failure` for a component that fails."""


class Failure(Exception):
    """A component raised: `details` go into the error that its container reports."""

    def __init__(self, message: str = "it broke", **details: Any) -> None:
        super().__init__(message)
        self.error = {"code": "component_error", "type": "ValueError", "message": message, **details}


class GraphPlayer:
    """Answers what the runner is given, and counts it by component."""

    def __init__(self, stage: Stage, answer: Answer | None = None) -> None:
        self.stage = stage
        self.answer: Answer = answer or (lambda slug, _: slug)
        self.ran: Counter[str] = Counter()
        self.inputs: list[tuple[str, Any]] = []

    async def publish(self, slug: str, *components: str, **graph: Any) -> None:
        """Publishes the graph, and code blocks for what it refers to; edges may be written as 'a -> b'."""
        for component in components:
            await self.stage.publish(component)
        if "edges" in graph:
            graph["edges"] = [edge_of(edge) for edge in graph["edges"]]
        await self.stage.publish(slug, Kind.WORKFLOW, code=None, **graph)

    async def submit(self, slug: str = "graph", input_data: Any = None, **fields: Any) -> Execution:
        return await self.stage.submit(slug, kind=Kind.WORKFLOW, input_data=input_data, **fields)

    async def take(self, count: int) -> dict[str, Assignment]:
        """The next assignments, by slug; they stay unanswered."""
        taken: dict[str, Assignment] = {}
        while len(taken) < count:
            for assignment in await self.stage.runner.claim():
                assert assignment.component_slug not in taken
                taken[assignment.component_slug] = assignment
        return taken

    async def play(self, execution: Execution) -> StatusDocument:
        """Answers attempts until the execution has ended."""
        while True:
            document = await self.stage.get(execution.id)
            if document.status.is_terminal:
                return document
            for assignment in await self.stage.runner.claim(hold_seconds=0.05):
                await self.reply(assignment)

    async def reply(self, assignment: Assignment) -> None:
        slug, given = assignment.component_slug, (assignment.input or {})["input_data"]
        self.ran[slug] += 1
        self.inputs.append((slug, given))
        try:
            output = self.answer(slug, given)
        except Failure as failure:
            await self.stage.runner.report(assignment, error=failure.error)
        else:
            await self.stage.runner.report(assignment, output)
        await self.stage.engine.executions.wait(
            self.stage.admin, self.stage.org_id, self.stage.workspace_id, assignment.execution_id, 0
        )


def edge_of(edge: Any) -> Any:
    if not isinstance(edge, str):
        return edge
    path, _, condition = edge.partition(" if ")
    source, target = path.split(" -> ")
    return {"source": source, "target": target, **({"condition": condition} if condition else {})}


def node(node_id: str, component: str = "", **fields: Any) -> dict[str, Any]:
    return {
        "id": node_id,
        "component_ref": component if "/" in component else f"code_block/{component or node_id}",
        **fields,
    }
