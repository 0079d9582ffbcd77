"""Graph workflows on a real engine: each type, conditions, joins, failures, deadlines, and what is told of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from flow_platform.bus.connection import Bus
from flow_platform.bus.server import NatsServer
from flow_platform.domain import errors
from flow_platform.domain.clock import ManualClock
from flow_platform.engine import accept
from flow_platform.engine.service import Engine
from flow_platform.store import open_store
from flow_platform.store.base import ExecutionFilter
from flow_sdk.wire.status import Kind, Status
from tests.support.eventually import eventually
from tests.support.graph_player import Failure, GraphPlayer, node
from tests.support.scripted_runner import ScriptedRunner
from tests.support.stage import Stage, keep_leases

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def player(store_url: str, nats: NatsServer) -> AsyncIterator[GraphPlayer]:
    """On SQLite, and on PostgreSQL."""
    clock = ManualClock()
    engine = Engine(open_store(store_url), nats.url, clock=clock)
    await engine.start()
    keep_leases(engine)
    bus = await Bus.connect(nats.runner_url, name="scripted")
    runner = ScriptedRunner(bus, slots=600)

    async def ready() -> bool:
        return engine.is_ready

    await eventually(ready, bool)
    await runner.start()
    yield GraphPlayer(Stage(engine, clock, nats, runner))
    await bus.drain_and_close()
    await engine.stop()


async def children(player: GraphPlayer, execution_id: str) -> list[dict[str, Any]]:
    """By slug."""
    stage = player.stage
    tree = await stage.engine.executions.tree(stage.admin, stage.org_id, stage.workspace_id, execution_id)
    return sorted((child["execution"] for child in tree["children"]), key=lambda child: child["component"]["slug"])


async def test_a_single_node_gets_the_input_and_gives_the_output(player: GraphPlayer) -> None:
    player.answer = lambda _, given: {"doubled": given["n"] * 2}
    await player.publish("graph", "a", type="single", nodes=[node("a")])
    ended = await player.play(await player.submit(input_data={"n": 21}))
    assert (ended.status, ended.outputs, ended.output) == (
        Status.COMPLETED,
        {"a": {"doubled": 42}},
        {"a": {"doubled": 42}},
    )
    assert ended.metrics.nodes == {"total": 1, "completed": 1, "failed": 0, "skipped": 0}
    assert (ended.attempt, ended.errors, ended.error, ended.waiting_on) == (0, [], None, None)
    assert ended.started_at is not None


async def test_a_sequence_hands_each_output_on(player: GraphPlayer) -> None:
    player.answer = lambda slug, given: [*given, slug]
    await player.publish("graph", "a", "b", "c", type="sequential", nodes=[node("a"), node("b"), node("c")])
    ended = await player.play(await player.submit(input_data=["in"]))
    assert ended.outputs == {"c": ["in", "a", "b", "c"]}


async def test_parallel_nodes_are_handed_out_at_once(player: GraphPlayer) -> None:
    await player.publish("graph", "a", "b", "c", type="parallel", nodes=[node("a"), node("b"), node("c")])
    execution = await player.submit(input_data={})
    assert execution.status is Status.QUEUED  # As a submit is always answered.
    taken = await player.take(3)
    document = await player.stage.get(execution.id)
    assert document.status is Status.WAITING
    assert document.waiting_on is not None
    assert document.waiting_on.message == "Waits for the nodes 'a', 'b', 'c'"
    await player.reply(taken["b"])
    await eventually(
        lambda: player.stage.get(execution.id),
        lambda found: bool(found.waiting_on and found.waiting_on.message == "Waits for the nodes 'a', 'c'"),
    )
    await player.reply(taken["c"])
    await player.reply(taken["a"])
    ended = await player.stage.wait(execution.id)
    assert ended.outputs == {"a": "a", "b": "b", "c": "c"}


async def test_conditions_choose_joins_wait_and_mappings_collect(player: GraphPlayer) -> None:
    player.answer = lambda slug, given: {"n": given["n"], "by": slug} if slug != "last" else given
    last = node(
        "last",
        join="any",
        input={"small": "$.nodes.small.output.by", "big": "$.nodes.big.output.by", "user": "$.inputs.user"},
    )
    await player.publish(
        "graph",
        "start",
        "small",
        "big",
        "last",
        nodes=[node("start"), node("small"), node("big"), last],
        edges=[
            "start -> small if outputs.start.n < 10",
            "start -> big if outputs.start.n >= 10",
            "small -> last",
            "big -> last",
        ],
        outputs={"result": "$.nodes.last.output"},
    )
    ended = await player.play(await player.submit(input_data={"n": 5, "user": "Ada"}))
    assert ended.outputs == {"result": {"small": "small", "big": None, "user": "Ada"}}
    assert ended.metrics.nodes == {"total": 4, "completed": 3, "failed": 0, "skipped": 1}
    ended = await player.play(await player.submit(input_data={"n": 50, "user": "Bob"}))
    assert ended.outputs == {"result": {"small": None, "big": "big", "user": "Bob"}}
    assert player.ran == {"start": 2, "small": 1, "big": 1, "last": 2}


async def test_a_failed_node_leaves_what_does_not_depend_on_it(player: GraphPlayer) -> None:
    def answer(slug: str, _: Any) -> Any:
        if slug == "bad":
            raise Failure("no such row: 7")
        return slug

    player.answer = answer
    await player.publish(
        "graph",
        "bad",
        "after",
        "good",
        nodes=[node("bad"), node("after"), node("good"), node("more", "good")],
        edges=["bad -> after", "good -> more"],
    )
    ended = await player.play(await player.submit())
    assert ended.status is Status.FAILED
    assert ended.error is not None
    assert (ended.error.code, ended.error.message) == ("node_failed", "node 'bad' failed: no such row: 7")
    [error] = ended.errors
    [bad] = [child for child in await children(player, ended.execution_id) if child["component"]["slug"] == "bad"]
    assert (error.code, error.type, error.message) == ("component_error", "ValueError", "no such row: 7")
    assert error.details[0]["node"] == "bad"
    assert error.details[0]["execution_id"] == bad["execution_id"]
    assert ended.metrics.nodes == {"total": 4, "completed": 2, "failed": 1, "skipped": 1}
    assert player.ran == {"bad": 1, "good": 2}


async def test_an_edge_that_reads_errors_handles_a_failure(player: GraphPlayer) -> None:
    def answer(slug: str, given: Any) -> Any:
        if slug == "bad":
            raise Failure
        return given

    player.answer = answer
    mend = node("mend", input={"why": "$.nodes.bad.error.message"})
    await player.publish("graph", "bad", "mend", nodes=[node("bad"), mend], edges=["bad -> mend if has(errors.bad)"])
    ended = await player.play(await player.submit())
    assert (ended.status, ended.outputs) == (Status.COMPLETED, {"mend": {"why": "it broke"}})
    assert [error.details[0]["node"] for error in ended.errors] == ["bad"]  # Handled, but not hidden.


async def test_an_input_that_cannot_be_made_fails_its_node(player: GraphPlayer) -> None:
    nodes = [node("a"), node("b", input={"x": "$.nodes.a.output.missing"})]
    await player.publish("graph", "a", "b", nodes=nodes, edges=["a -> b"])
    player.answer = lambda _slug, _given: {"there": 1}
    ended = await player.play(await player.submit())
    assert ended.status is Status.FAILED
    assert ended.error is not None
    assert ended.error.message.startswith("node 'b' failed: path '$.nodes.a.output.missing' leads nowhere")
    assert (ended.errors[0].code, ended.errors[0].details[0]["node"]) == ("input_mapping_failed", "b")
    assert player.ran == {"a": 1}


async def test_an_input_that_is_not_of_the_schema_starts_nothing(player: GraphPlayer) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    await player.publish("graph", "a", nodes=[node("a")], input_schema=schema)
    ended = await player.stage.get((await player.submit(input_data={"n": "five"})).id)
    assert ended.error is not None
    assert (ended.status, ended.error.code) == (Status.FAILED, "invalid_input")
    assert ended.error.message == "the input does not fit: n: expected integer, got 'five'"
    assert await children(player, ended.execution_id) == []


async def test_a_node_has_its_own_retries_and_timeout(player: GraphPlayer) -> None:
    def answer(_slug: str, _given: Any) -> Any:
        if player.ran["a"] < 3:
            raise Failure
        return player.ran["a"]

    player.answer = answer
    retry = {"max_attempts": 3, "initial_interval_seconds": 0}
    nodes = [node("a", retry=retry), node("b", timeout_seconds=7)]
    await player.publish("graph", "a", "b", type="parallel", nodes=nodes)
    execution = await player.submit()
    [a, b] = await children(player, execution.id)
    assert (a["max_attempts"], b["timeout_seconds"]) == (3, 7.0)
    taken = await player.take(2)
    await player.reply(taken["a"])
    player.stage.clock.advance(timedelta(seconds=8))
    await player.stage.wait(b["execution_id"])
    ended = await player.play(execution)
    assert (ended.status, player.ran["a"]) == (Status.FAILED, 3)
    assert [(error.code, error.details[0]["node"]) for error in ended.errors] == [("timeout", "b")]


async def test_a_component_that_is_not_deployed_fails_its_node(player: GraphPlayer) -> None:
    await player.publish("graph", "a", "b", nodes=[node("a"), node("b", join="all")], edges=["a -> b if has(errors.a)"])
    stage = player.stage
    [_, staging, _] = await stage.engine.releases.rings(stage.admin, stage.org_id, stage.workspace_id)
    where = stage.org_id, stage.workspace_id
    workflow, _ = await stage.engine.catalog.get(stage.admin, *where, Kind.WORKFLOW, "graph")
    block, _ = await stage.engine.catalog.get(stage.admin, *where, Kind.CODE_BLOCK, "b")
    for component in (workflow, block):
        await stage.engine.rollouts.deploy(stage.admin, *where, component.id, staging.id)
    ended = await player.play(await player.submit(ring_id=staging.id))
    assert (ended.status, ended.outputs) == (Status.COMPLETED, {"b": "b"})
    [error] = ended.errors
    assert (error.code, error.details[0]["node"]) == ("not_deployed", "a")
    [a, b] = await children(player, ended.execution_id)
    assert (a["status"], a["deployment_id"], b["ring_id"]) == ("failed", None, staging.id)


async def test_the_deadline_and_a_cancel_end_what_runs_below(player: GraphPlayer) -> None:
    await player.publish("inner", "a", nodes=[node("a")])
    await player.publish("graph", nodes=[node("one", "workflow/inner")], timeout_seconds=60)
    cancelled = await player.submit()
    await player.take(1)
    await player.stage.cancel(cancelled.id)
    assert (await player.stage.get(cancelled.id)).status is Status.CANCELLED
    [inner] = await children(player, cancelled.id)
    assert inner["status"] == "cancelled"
    late = await player.submit()
    await player.take(1)
    player.stage.clock.advance(timedelta(seconds=61))
    ended = await player.stage.wait(late.id)
    assert ended.status is Status.TIMEOUT
    [inner] = await children(player, late.id)
    assert inner["status"] in {"cancelled", "timeout"}


async def test_a_delayed_graph_begins_when_its_time_has_come(player: GraphPlayer) -> None:
    await player.publish("graph", "a", nodes=[node("a")])
    start_at = player.stage.clock.now() + timedelta(hours=1)
    execution = await player.submit(start_at=start_at)
    document = await player.stage.get(execution.id)
    assert document.waiting_on is not None
    assert (document.status, document.waiting_on.reason, document.waiting_on.until) == (
        Status.WAITING,
        "start",
        start_at,
    )
    assert await children(player, execution.id) == []
    player.stage.clock.advance(timedelta(hours=1))
    ended = await player.play(execution)
    assert (ended.status, ended.outputs) == (Status.COMPLETED, {"a": "a"})
    assert ended.started_at is not None
    assert ended.started_at >= start_at


async def test_graphs_of_graphs_and_below_code(player: GraphPlayer) -> None:
    player.answer = lambda slug, given: {slug: given}
    await player.publish("inner", "a", "b", type="sequential", nodes=[node("a"), node("b")])
    await player.publish("outer", type="sequential", nodes=[node("x", "workflow/inner"), node("y", "workflow/inner")])
    ended = await player.play(await player.submit("outer", input_data=1))
    once = {"b": {"b": {"a": 1}}}
    assert ended.outputs == {"y": {"b": {"b": {"a": once}}}}
    assert player.ran == {"a": 2, "b": 2}
    await player.stage.publish("code", Kind.WORKFLOW)
    code = await player.stage.submit("code", kind=Kind.WORKFLOW)
    [assignment] = (await player.take(1)).values()
    inside = player.stage.inside(assignment)
    graph = await player.submit("outer", input_data=2, principal=inside)
    assert (await player.play(graph)).status is Status.COMPLETED
    await player.stage.runner.report(assignment, "done")
    assert (await player.stage.wait(code.id)).status is Status.COMPLETED


async def test_recursion_ends_at_a_limit(player: GraphPlayer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "MAX_TREE_OF_GRAPHS", 60)
    monkeypatch.setattr(accept, "MAX_BEGUN_AT_ONCE", 20)  # So that the sweeper has to begin some of them.
    await player.publish("graph", "a", nodes=[node("a")])
    again = [node(f"again{number}", "workflow/graph") for number in range(3)]
    await player.publish("graph", type="parallel", nodes=again)
    ended = await player.stage.wait((await player.submit()).id)
    assert ended.status is Status.FAILED
    stage = player.stage
    page = await stage.engine.executions.list(
        stage.admin, stage.org_id, stage.workspace_id, ExecutionFilter(), None, 200
    )
    codes = {document.error.code for document in page.items if document.error}
    assert codes - {"depth_limit"} == {"node_failed", "tree_limit"}
    assert len(page.items) < 200


async def test_a_retry_keeps_what_completed_and_runs_the_rest_anew(player: GraphPlayer) -> None:
    broken = True

    def answer(slug: str, given: Any) -> Any:
        if slug == "bad" and broken:
            raise Failure
        return {"by": slug, "given": given}

    player.answer = answer
    await player.publish("graph", "a", "bad", "c", type="sequential", nodes=[node("a"), node("bad"), node("c")])
    first = await player.submit(input_data=1)
    assert (await player.play(first)).status is Status.FAILED
    broken = False
    second = await player.submit(input_data=1, retry_of_id=first.id)
    ended = await player.play(second)
    assert ended.outputs == {"c": {"by": "c", "given": {"by": "bad", "given": {"by": "a", "given": 1}}}}
    assert player.ran == {"a": 1, "bad": 2, "c": 1}
    third = await player.submit(input_data=2, retry_of_id=second.id)
    assert (await player.play(third)).status is Status.COMPLETED  # With another input everything is another call.
    assert player.ran == {"a": 2, "bad": 3, "c": 2}


async def test_a_retry_reaches_into_graphs_that_are_nodes(player: GraphPlayer) -> None:
    broken = True

    def answer(slug: str, given: Any) -> Any:
        if slug == "bad" and broken:
            raise Failure
        return given

    player.answer = answer
    await player.publish("inner", "a", "bad", type="sequential", nodes=[node("a"), node("bad")])
    await player.publish("graph", nodes=[node("one", "workflow/inner")])
    first = await player.submit(input_data=1)
    assert (await player.play(first)).status is Status.FAILED
    broken = False
    ended = await player.play(await player.submit(input_data=1, retry_of_id=first.id))
    assert ended.outputs == {"one": {"bad": 1}}
    assert player.ran == {"a": 1, "bad": 2}


async def test_publishing_names_node_and_edge(player: GraphPlayer) -> None:
    with pytest.raises(errors.InvalidInput) as refused:
        await player.publish(
            "graph", "a", nodes=[node("a"), node("b", "absent")], edges=["a -> b if outputs.a.n >", "b -> a"]
        )
    fields = {detail["field"] for detail in refused.value.details}
    assert fields >= {"edge 'a' -> 'b'", "node 'b'.component_ref"}
    with pytest.raises(errors.InvalidInput, match="no code beside nodes"):
        await player.stage.publish("graph", Kind.WORKFLOW, nodes=[node("a")])
    with pytest.raises(errors.InvalidInput, match="only workflows are graphs"):
        await player.stage.publish("graph", Kind.CODE_BLOCK, code=None, nodes=[node("a")])
    with pytest.raises(errors.InvalidInput, match="nodes of a graph"):
        await player.stage.publish("graph", Kind.WORKFLOW, code=None)


async def test_equal_graphs_are_one_version(player: GraphPlayer) -> None:
    stage = player.stage
    await player.publish("graph", "a", nodes=[node("a")], edges=[])
    await player.publish("graph", nodes=[node("a", join="all")], type="graph")
    where = stage.org_id, stage.workspace_id
    component, version = await stage.engine.catalog.get(stage.admin, *where, Kind.WORKFLOW, "graph")
    assert component.latest_version == 1
    assert version is not None
    assert version.definition.graph == {"type": "graph", "nodes": [node("a")]}
