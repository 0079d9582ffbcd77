"""What a graph tells of its nodes while it runs."""

from __future__ import annotations

from typing import Any

import pytest

from flow_sdk.wire.execution import EventDocument
from flow_sdk.wire.status import Status
from tests.support.graph_player import Failure, GraphPlayer, node
from tests.support.retries import retry
from tests.support.stage import Stage

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def database_url(store_url: str) -> str:
    """On each database."""
    return store_url


@pytest.fixture
def player(stage: Stage) -> GraphPlayer:
    stage.runner.slots = 100

    def answer(slug: str, given: Any) -> Any:
        if slug == "bad":
            raise Failure("no such host")
        return {"size": 3}

    return GraphPlayer(stage, answer)


async def events_of(player: GraphPlayer, execution_id: str) -> list[EventDocument]:
    stage = player.stage
    stream = stage.engine.executions.events(stage.admin, stage.org_id, stage.workspace_id, execution_id, 0)
    return [event async for event in stream if event is not None]


def told(events: list[EventDocument]) -> list[tuple[str, str]]:
    return [(event.event_type.removeprefix("node_"), event.event_data["node"]) for event in events]


async def test_each_node_is_told_once_as_it_starts_and_ends(player: GraphPlayer) -> None:
    await player.publish("graph", "a", "b", type="sequential", nodes=[node("a"), node("b")])
    graph = await player.submit(input_data=1)
    assert (await player.play(graph)).status is Status.COMPLETED
    events = await events_of(player, graph.id)
    assert told(events) == [("started", "a"), ("completed", "a"), ("started", "b"), ("completed", "b")]
    assert [event.position for event in events] == [1, 2, 3, 4]
    started, completed = events[:2]
    assert started.event_data == completed.event_data
    assert started.event_data["component"] == "code_block/a"
    child = await player.stage.get(started.event_data["execution_id"])
    assert child.component.slug == "a"


async def test_what_is_skipped_says_by_which_edge_and_what_failed_says_why(player: GraphPlayer) -> None:
    slugs = ("a", "big", "bad", "after", "mend", "last")
    edges = [
        {"source": "a", "target": "big", "condition": "outputs.a.size > 100"},
        {"source": "big", "target": "last"},
        {"source": "bad", "target": "after"},
        {"source": "bad", "target": "mend", "condition": "has(errors.bad)"},
    ]
    nodes = [node(slug, input={}) for slug in slugs]
    await player.publish("graph", *slugs, nodes=nodes, edges=edges)
    graph = await player.submit(input_data=1)
    assert (await player.play(graph)).status is Status.COMPLETED
    events = await events_of(player, graph.id)
    data = {kind_and_node: event.event_data for kind_and_node, event in zip(told(events), events, strict=True)}
    assert len(data) == len(events)
    assert data["skipped", "big"]["edges"] == [
        {"source": "a", "condition": "outputs.a.size > 100", "reason": "the condition is false"}
    ]
    assert data["skipped", "last"]["edges"] == [{"source": "big", "reason": "node 'big' was skipped"}]
    assert data["skipped", "after"]["edges"] == [{"source": "bad", "reason": "node 'bad' failed"}]
    assert data["failed", "bad"]["error"] == {
        "code": "component_error",
        "type": "ValueError",
        "message": "no such host",
    }
    assert {one for one in data if one[0] == "completed"} == {("completed", "a"), ("completed", "mend")}
    assert "execution_id" not in data["skipped", "big"]


async def test_a_node_whose_input_cannot_be_made_is_told_as_failed(player: GraphPlayer) -> None:
    nodes = [node("a"), node("b", input={"x": "$.nodes.a.output.missing"})]
    await player.publish("graph", "a", "b", type="sequential", nodes=nodes)
    graph = await player.submit(input_data=1)
    assert (await player.play(graph)).status is Status.FAILED
    events = await events_of(player, graph.id)
    assert told(events) == [("started", "a"), ("completed", "a"), ("failed", "b")]
    assert events[-1].event_data["error"]["code"] == "input_mapping_failed"


async def test_a_repetition_tells_what_it_kept(player: GraphPlayer) -> None:
    await player.publish("graph", "a", "bad", type="sequential", nodes=[node("a"), node("bad")])
    first = await player.submit(input_data=1)
    assert (await player.play(first)).status is Status.FAILED
    again = await retry(player.stage, first.id)
    assert (await player.play(again)).status is Status.FAILED
    events = await events_of(player, again.id)
    assert told(events) == [("started", "a"), ("completed", "a"), ("started", "bad"), ("failed", "bad")]
    assert [event.event_data.get("kept", False) for event in events] == [True, False, False, False]
