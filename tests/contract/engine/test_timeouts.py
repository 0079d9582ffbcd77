"""How long an execution may take, when the component says something about it and the caller does, too."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flow_sdk.wire.status import Kind, Status
from tests.support.eventually import eventually
from tests.support.retries import retry
from tests.support.stage import Stage

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(
    ("declared", "asked", "holds"),
    [(30, 300, 30), (600, 300, 300), (None, 500, 500), (30, None, 30), (None, None, 300), (30, 30, 30)],
)
async def test_the_shorter_one_holds(stage: Stage, declared: float | None, asked: float | None, holds: float) -> None:
    fields: dict[str, Any] = {"timeout_seconds": declared} if declared else {}
    await stage.publish(**fields)
    submitted = await stage.submit(timeout_seconds=asked)
    assert submitted.timeout_seconds == holds
    assert submitted.deadline_at == submitted.created_at + timedelta(seconds=holds)


async def test_a_child_that_is_called_with_the_default_of_clients_ends_at_its_own_time(stage: Stage) -> None:
    await stage.publish("flow", Kind.WORKFLOW)
    await stage.publish("quick", timeout_seconds=5)
    parent = await stage.claim((await stage.submit("flow", kind=Kind.WORKFLOW)).id)
    child = await stage.claim((await stage.submit("quick", stage.inside(parent), timeout_seconds=300)).id)
    stage.clock.advance(timedelta(seconds=6))
    await stage.engine.sweeper.sweep(leases=False)
    ended = await eventually(lambda: stage.get(child.execution_id), lambda found: found.status.is_terminal)
    assert (ended.status, ended.error and ended.error.code) == (Status.TIMEOUT, "timeout")
    assert (await stage.get(parent.execution_id)).status is Status.RUNNING


async def test_a_node_of_a_graph_says_it_instead_of_the_component_also_when_it_is_repeated(stage: Stage) -> None:
    await stage.publish("quick", timeout_seconds=5)
    node: dict[str, Any] = {"id": "one", "component_ref": "code_block/quick", "timeout_seconds": 50}
    await stage.publish("graph", Kind.WORKFLOW, code=None, nodes=[node])
    graph = await stage.submit("graph", kind=Kind.WORKFLOW)

    async def child() -> dict[str, Any]:
        tree = await stage.engine.executions.tree(stage.admin, stage.org_id, stage.workspace_id, graph.id)
        return tree["children"][-1]["execution"]

    first = await child()
    assert first["timeout_seconds"] == 50
    await stage.cancel(graph.id)
    assert (await retry(stage, first["execution_id"])).timeout_seconds == 50
