"""A retry of a graph whose nodes still run, since somebody retried them by hand: they are joined, not run twice."""

from __future__ import annotations

from typing import Any

import pytest

from flow_sdk.wire.execution import StatusDocument
from flow_sdk.wire.status import Status
from tests.support.eventually import eventually
from tests.support.graph_player import Failure, GraphPlayer
from tests.support.retries import ERROR, retry
from tests.support.stage import Stage

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def database_url(store_url: str) -> str:
    """On each database."""
    return store_url


@pytest.fixture
async def player(stage: Stage) -> GraphPlayer:
    stage.runner.slots = 100

    def answer(slug: str, given: Any) -> Any:
        if slug == "bad":
            raise Failure
        return {"by": slug, "given": given}

    player = GraphPlayer(stage, answer)
    nodes = [{"id": slug, "component_ref": f"code_block/{slug}"} for slug in ("a", "bad", "c")]
    await player.publish("graph", "a", "bad", "c", type="sequential", nodes=nodes)
    return player


async def failed_graph(player: GraphPlayer) -> tuple[StatusDocument, str]:
    """It, and the execution of its node that failed."""
    graph = await player.play(await player.submit(input_data=1))
    assert graph.status is Status.FAILED
    return graph, graph.errors[0].details[0]["execution_id"]


async def live_children(stage: Stage, execution_id: str) -> int:
    found = await stage.engine.store.read(lambda tx: tx.executions.find(execution_id))
    assert found is not None
    return found.live_children


async def test_a_node_that_runs_again_is_joined_and_its_end_takes_the_graph_on(player: GraphPlayer) -> None:
    stage = player.stage
    graph, node = await failed_graph(player)
    running = await stage.claim((await retry(stage, node)).id)
    again = await retry(stage, graph.execution_id)
    document = await stage.get(again.id)
    assert (document.status, await live_children(stage, again.id)) == (Status.WAITING, 1)
    assert document.waiting_on is not None
    assert "bad" in document.waiting_on.message
    assert player.ran == {"a": 1, "bad": 1}
    await stage.end(running, "mended")
    ended = await player.play(again)
    assert ended.outputs == {"c": {"by": "c", "given": "mended"}}
    assert (player.ran, await live_children(stage, again.id)) == ({"a": 1, "bad": 1, "c": 1}, 0)


async def test_a_node_that_is_joined_and_fails_fails_the_graph_and_can_be_joined_again(player: GraphPlayer) -> None:
    stage = player.stage
    graph, node = await failed_graph(player)
    second_try = await retry(stage, node)
    second = await retry(stage, graph.execution_id)
    await stage.end(await stage.claim(second_try.id), error=ERROR)
    assert (await stage.wait(second.id)).status is Status.FAILED
    third_try = await stage.claim((await retry(stage, second_try.id)).id)
    third = await retry(stage, second.id)
    await stage.end(third_try, "mended")
    assert (await player.play(third)).outputs == {"c": {"by": "c", "given": "mended"}}
    assert player.ran == {"a": 1, "bad": 1, "c": 1}


async def test_cancelling_the_repetition_cancels_the_node_that_it_joined(player: GraphPlayer) -> None:
    stage = player.stage
    graph, node = await failed_graph(player)
    joined = await retry(stage, node)
    again = await retry(stage, graph.execution_id)
    await stage.cancel(again.id)
    ended = await eventually(lambda: stage.get(joined.id), lambda document: document.status.is_terminal)
    assert ended.status is Status.CANCELLED


async def test_a_node_that_is_being_cancelled_is_not_joined(player: GraphPlayer) -> None:
    stage = player.stage
    graph, node = await failed_graph(player)
    running = await stage.claim((await retry(stage, node)).id)
    assert (await stage.cancel(running.execution_id)).status is Status.CANCELLING
    again = await retry(stage, graph.execution_id)
    tree = await stage.engine.executions.tree(stage.admin, stage.org_id, stage.workspace_id, again.id)
    assert [child["execution"]["component"]["name"] for child in tree["children"]] == ["bad"]
