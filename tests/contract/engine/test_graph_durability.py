"""Graphs when engines die between two steps, and when two engines end nodes of one graph at the same moment."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from flow_platform.bus.connection import Bus
from flow_platform.bus.server import NatsServer
from flow_platform.domain.clock import ManualClock
from flow_platform.domain.graph_run import completed
from flow_platform.engine.service import Engine
from flow_platform.store import open_store
from flow_platform.store.base import Store, Transaction
from flow_sdk.wire.runner import Assignment
from flow_sdk.wire.status import Kind, Status
from tests.support.eventually import eventually
from tests.support.graph_bench import GraphBench
from tests.support.graph_player import Failure, GraphPlayer, edge_of, node
from tests.support.scripted_runner import ScriptedRunner
from tests.support.stage import Stage, keep_leases

pytestmark = pytest.mark.timeout(120)

NODES = [
    node("start", "a"),
    node("left", "b"),
    node("right", "bad"),
    node("mend", "a", input={"why": "$.nodes.right.error.message"}),
    node("inner", "workflow/inner"),
    node(
        "last",
        "b",
        join="any",
        input={"l": "$.nodes.left.output", "m": "$.nodes.mend.output", "i": "$.nodes.inner.output"},
    ),
]
EDGES = [
    "start -> left",
    "start -> right if inputs.n > 1",
    "right -> mend if has(errors.right)",
    "start -> inner",
    "left -> last",
    "mend -> last",
    "inner -> last",
]


def answer(slug: str, given: Any) -> Any:
    if slug == "bad":
        raise Failure
    return {slug: given}


async def engine_over(url: str, nats: NatsServer, clock: ManualClock) -> Engine:
    engine = Engine(open_store(url), nats.url, clock=clock)
    await engine.start()
    keep_leases(engine)

    async def ready() -> bool:
        return engine.is_ready

    await eventually(ready, bool)
    return engine


async def played(url: str, nats: NatsServer, crash_after: set[int]) -> tuple[Any, dict[str, int]]:
    """Runs the graph; after the ends with these numbers, another engine takes over."""
    clock = ManualClock()
    engine = await engine_over(url, nats, clock)
    bus = await Bus.connect(nats.runner_url, name="scripted")
    runner = ScriptedRunner(bus, slots=50)
    await runner.start()
    player = GraphPlayer(Stage(engine, clock, nats, runner), answer)
    await player.publish("inner", "a", "b", "bad", type="sequential", nodes=[node("x", "a"), node("y", "b")])
    await player.publish("graph", nodes=NODES, edges=EDGES)
    execution = await player.submit(input_data={"n": 2})
    ended, waiting = 0, list[Assignment]()
    while not (document := await player.stage.get(execution.id)).status.is_terminal:
        waiting += await runner.claim(hold_seconds=0.05)
        if not waiting:
            continue
        one = waiting.pop()
        await player.reply(one)
        await player.stage.wait(one.execution_id)
        if ended in crash_after:
            await player.stage.engine.stop()
            player.stage.engine = await engine_over(url, nats, clock)
        ended += 1
    await bus.drain_and_close()
    await player.stage.engine.stop()
    return (document.status, document.outputs, document.metrics.nodes), dict(player.ran)


async def test_engines_that_die_between_steps_change_nothing(tmp_path: Path, nats: NatsServer) -> None:
    undisturbed = await played(f"sqlite:///{tmp_path / 'flow.db'}", nats, set())
    assert undisturbed[0][0] is Status.COMPLETED
    assert undisturbed[1] == {"a": 3, "b": 3, "bad": 1}
    every_step = await played(f"sqlite:///{tmp_path / 'other.db'}", nats, set(range(20)))
    assert every_step == undisturbed


async def test_a_transaction_that_is_lost_is_made_again(tmp_path: Path) -> None:
    """The end of a node and all that follows from it are one: it fails at the last moment, and comes again."""
    store = open_store(f"sqlite:///{tmp_path / 'flow.db'}")
    await store.open()
    bench = await GraphBench.over(store)
    await bench.publish("a")
    await bench.publish("graph", type="sequential", nodes=[node("x", "a"), node("y", "a"), node("z", "a")])
    graph = await bench.submit("graph", 1)

    class Lost(Exception):
        pass

    for name in ("x", "y", "z"):
        child, _ = (await bench.nodes(graph.id))[name]

        def end(tx: Transaction, *, lost: bool, child_id: str = child.id) -> None:
            bench.end(tx, child_id, completed(child_id))
            if lost:
                raise Lost

        with pytest.raises(Lost):
            await store.write(lambda tx: end(tx, lost=True))
        assert (await bench.find(graph.id)).status is Status.WAITING
        await store.write(lambda tx: end(tx, lost=False))
    assert (await bench.find(graph.id)).status is Status.COMPLETED
    assert list(await bench.nodes(graph.id)) == ["x", "y", "z"]
    await store.close()


async def test_two_engines_that_end_two_nodes_of_a_join_at_once_go_on_once(postgresql_url: str) -> None:
    one, two = open_store(postgresql_url), open_store(postgresql_url)
    await one.open()
    await two.open()
    bench = await GraphBench.over(one)
    await bench.publish("a")
    nodes = [
        node("x", "a"),
        node("y", "a"),
        node("both", "a", input={"x": "$.nodes.x.output", "y": "$.nodes.y.output"}),
    ]
    await bench.publish("graph", nodes=nodes, edges=[edge_of("x -> both"), edge_of("y -> both")])
    for turn in range(10):
        graph = await bench.submit("graph", turn)
        started = await bench.nodes(graph.id)
        meeting = threading.Barrier(2)

        def end(tx: Transaction, name: str, first: list[bool], meeting: Any = meeting, started: Any = started) -> None:
            found = tx.executions.find(started[name][0].id)
            assert found is not None
            if first.pop() if first else False:
                meeting.wait(60)  # Both have begun, and see the graph as it was.
            bench.end(tx, found.id, completed(name))

        await asyncio.gather(
            one.write(lambda tx, end=end, first=[True]: end(tx, "x", first)),
            two.write(lambda tx, end=end, first=[True]: end(tx, "y", first)),
        )
        went_on = await bench.nodes(graph.id)
        assert list(went_on)[2:] == ["both"]
        assert went_on["both"][1] == {"x": "x", "y": "y"}
        found = await bench.find(graph.id)
        assert (found.status, found.live_children) == (Status.WAITING, 1)
        await one.write(lambda tx, child=went_on["both"][0].id: bench.end(tx, child, completed("end")))
        assert (await bench.find(graph.id)).status is Status.COMPLETED
    await one.close()
    await two.close()


async def test_nodes_are_handed_out_in_the_transaction_that_made_them(stage: Stage) -> None:
    """A held claim is answered at once, by the submit and by the end of a node: no second look, no wake-up between."""
    player = GraphPlayer(stage, answer)
    await player.publish("graph", "a", "b", type="sequential", nodes=[node("x", "a"), node("y", "b")])
    claim = asyncio.create_task(stage.runner.claim(hold_seconds=30))
    await eventually(lambda: _held(stage), bool)
    execution = await player.submit(input_data=1)
    [first] = await claim
    claim = asyncio.create_task(stage.runner.claim(hold_seconds=30))
    await eventually(lambda: _held(stage), bool)
    await player.reply(first)
    [second] = await claim
    assert (first.component_slug, second.component_slug) == ("a", "b")
    await player.reply(second)
    assert (await stage.wait(execution.id)).status is Status.COMPLETED


async def _held(stage: Stage) -> bool:
    return stage.engine._claims._grants._held != {}  # Nothing else tells that a claim has arrived.


async def test_a_graph_wakes_the_code_that_gave_its_container_back(stage: Stage) -> None:
    player = GraphPlayer(stage, answer)
    await player.publish("graph", "a", nodes=[node("x", "a")])
    await stage.publish("code", Kind.WORKFLOW)
    code = await stage.submit("code", kind=Kind.WORKFLOW)
    [assignment] = await stage.runner.claim()
    graph = await player.submit(input_data=1, principal=stage.inside(assignment))
    details = [{"field": "execution_id", "message": graph.id}]
    await stage.runner.report(assignment, error={"code": "suspended", "message": "waits", "details": details})
    await eventually(lambda: stage.get(code.id), lambda document: document.status is Status.WAITING)
    [leaf] = await stage.runner.claim()
    await player.reply(leaf)
    await eventually(lambda: stage.get(code.id), lambda document: document.status is not Status.WAITING)
    [again] = await stage.runner.claim()
    assert (again.execution_id, again.attempt) == (code.id, 2)


@pytest.mark.timeout(300)
async def test_a_wide_graph_starts_and_joins_once(store: Store) -> None:
    bench = await GraphBench.over(store)
    names = [f"n{number}" for number in range(498)]
    nodes = [
        node("first", "a"),
        *(node(name, "a") for name in names),
        node("last", "a", input={"n": "$.nodes.n7.output"}),
    ]
    edges = [edge_of(edge) for name in names for edge in (f"first -> {name}", f"{name} -> last if outputs.{name}.ok")]
    await bench.publish("a")
    await bench.publish("graph", nodes=nodes, edges=edges)
    graph = await bench.submit("graph", None)
    for width in (1, 498, 1):
        live = [child for child, _ in (await bench.nodes(graph.id)).values() if not child.status.is_terminal]
        assert len(live) == width
        ends = [store.write(lambda tx, child=child: bench.end(tx, child.id, completed({"ok": True}))) for child in live]
        await asyncio.gather(*ends)
    ended = await bench.find(graph.id)
    assert (ended.status, ended.live_children) == (Status.COMPLETED, 0)
    assert ended.metrics.nodes == {"total": 500, "completed": 500, "failed": 0, "skipped": 0}


async def test_a_graph_whose_component_is_gone_fails_with_all_that_it_started(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'flow.db'}")
    await store.open()
    bench = await GraphBench.over(store)
    await bench.publish("a")
    await bench.publish("b")
    await bench.publish(
        "graph", nodes=[node("x", "a"), node("y", "b"), node("z", "a")], edges=[edge_of("x -> y"), edge_of("x -> z")]
    )
    graph = await bench.submit("graph", 1)
    with contextlib.closing(sqlite3.connect(tmp_path / "flow.db")) as connection, connection:
        connection.execute("UPDATE components SET slug = 'gone' WHERE slug = 'a'")
    child, _ = (await bench.nodes(graph.id))["x"]
    await store.write(lambda tx: bench.end(tx, child.id, completed(1)))
    ended = await bench.find(graph.id)
    assert ended.error is not None
    assert (ended.status, ended.live_children, ended.error.code) == (Status.FAILED, 0, "graph_broken")
    assert ended.error.message == "node 'z' (code_block/a) cannot run: its component is not there any more"
    assert (await bench.find(child.id)).status is Status.COMPLETED
    await store.close()
