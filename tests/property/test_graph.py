"""Whatever the order in which nodes end, and wherever a run is interrupted, it comes to the same end."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flow_platform.domain.execution import Execution
from flow_platform.domain.graph import Graph, load_graph
from flow_platform.domain.graph_result import Outcome
from flow_platform.domain.graph_run import RunState, advance, completed, failed
from flow_platform.engine.graph_steps import view_of
from flow_platform.store import open_store
from flow_sdk.wire.execution import ErrorDocument, MetricsDocument
from flow_sdk.wire.status import Status
from tests.support.graph_bench import GraphBench

_CONDITIONS = (
    *[None] * 8,
    "outputs.{source}.n % 2 == 0",
    "has(errors.{source})",
    "errors.size() == 0",
    "has(outputs.{other}) && outputs.{other}.n > 2",
    "has(errors.{other}) || outputs.{source}.n < 3",
    "outputs.{source}.missing",
)


@st.composite
def _documents(draw: st.DrawFn) -> tuple[dict[str, Any], frozenset[str]]:
    """A random acyclic graph, and the nodes that fail in it."""
    ids = [f"n{index}" for index in range(draw(st.integers(4, 9)))]
    before: dict[str, set[str]] = {node: set() for node in ids}
    edges: list[dict[str, Any]] = []
    for index, target in enumerate(ids[1:], 1):
        sources = draw(st.sets(st.sampled_from(ids[:index]), min_size=min(index, 2), max_size=3))
        sources = sorted(sources) if draw(st.booleans()) else sorted(sources)[:1]
        for source in sources:
            before[target] |= before[source] | {source}
            condition = draw(st.sampled_from(_CONDITIONS))
            edge = {"source": source, "target": target}
            if condition:
                other = draw(st.sampled_from(sorted(before[source] | {source})))
                edge["condition"] = condition.format(source=source, other=other)
            edges.append(edge)
    nodes: list[dict[str, Any]] = []
    for node in ids:
        mapping: dict[str, Any] = {"from": "$.inputs.seed"}
        if before[node]:
            for read in draw(st.lists(st.sampled_from(sorted(before[node])), min_size=1, max_size=2)):
                tail = draw(st.sampled_from(["output", "output", "output.n", "output.odd", "error"]))
                mapping[read + tail] = f"$.nodes.{read}.{tail}"
        join = draw(st.sampled_from(["all", "any", "any"]))
        nodes.append({"id": node, "component_ref": "code_block/step", "input": mapping, "join": join})
    return {"nodes": nodes, "edges": edges}, frozenset(draw(st.lists(st.sampled_from(ids), max_size=2)))


def _graphs() -> st.SearchStrategy[tuple[Graph, frozenset[str]]]:
    return _documents().map(lambda drawn: (load_graph(drawn[0]), drawn[1]))


def _outcome(node: str, given_input: Any, failing: frozenset[str]) -> Outcome:
    """What a node gives depends on its input only, as a component's result should."""
    number = sum(map(ord, node + repr(given_input))) % 7
    metrics = MetricsDocument(run_ms=number / 3, max_rss_bytes=number)
    if node in failing:
        return failed(ErrorDocument(code="component_error", message=repr(given_input)), metrics)
    return completed({"n": number} | ({"odd": True} if number % 2 else {}), metrics)


def _drive(graph: Graph, failing: frozenset[str], seed: int, *, forget: bool) -> tuple[Any, dict[str, Any]]:
    """Ends started nodes in random order, several at a time; `forget` keeps nothing but recorded outcomes."""
    rng = random.Random(seed)  # noqa: S311 - an order, no secret.
    state = RunState({"seed": 1})
    inputs: dict[str, Any] = {}
    running: list[str] = []
    for _ in range(10 * len(graph.nodes)):
        step = advance(graph, state)
        assert advance(graph, step.state).start == step.start
        state = step.state
        for start in step.start:
            assert start.node not in inputs, "started twice"
            inputs[start.node] = start.input
            running.append(start.node)
        if step.result is not None:
            assert not running
            return step.result, inputs
        state = state.with_started(*(start.node for start in step.start))
        assert running, "neither over nor running: stuck"
        for _ in range(rng.choice((1, 1, len(running)))):
            node = running.pop(rng.randrange(len(running)))
            state = state.with_outcome(node, _outcome(node, inputs[node], failing))
        if forget:
            recorded = {node: outcome for node, outcome in state.outcomes.items() if node in inputs}
            state = RunState(state.inputs, recorded, state.started)
    raise AssertionError("does not end")


@settings(max_examples=80, deadline=None)
@given(drawn=_graphs(), seed=st.integers(0, 2**32))
def test_any_interleaving_gives_the_same_end(drawn: tuple[Graph, frozenset[str]], seed: int):
    graph, failing = drawn
    first = _drive(graph, failing, 0, forget=False)
    for turn in range(4):
        assert _drive(graph, failing, seed + turn, forget=bool(turn % 2)) == first


@settings(max_examples=50, deadline=None)
@given(drawn=_graphs(), seed=st.integers(0, 2**32))
def test_each_node_ends_one_way_and_joins_hold(drawn: tuple[Graph, frozenset[str]], seed: int):
    graph, failing = drawn
    result, inputs = _drive(graph, failing, seed, forget=False)
    counts = result.metrics["nodes"]
    assert counts["completed"] + counts["failed"] + counts["skipped"] == counts["total"] == len(graph.nodes)
    assert counts["completed"] == len(set(inputs) - failing)
    for node in inputs:
        edges = graph.incoming[node]
        ran = [edge.source in inputs or edge.source in result.errors for edge in edges]
        assert not edges or (all(ran) if graph.nodes[node].join == "all" else any(ran))
    assert result.is_completed == (result.failure is None)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'flow.db'}"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=_documents(), seed=st.integers(0, 2**32))
def test_the_engine_comes_to_the_same_end(url: str, drawn: tuple[dict[str, Any], frozenset[str]], seed: int):
    asyncio.run(_compare(url, *drawn, random.Random(seed)))  # noqa: S311 - an order, no secret.


async def _compare(url: str, document: dict[str, Any], failing: frozenset[str], rng: random.Random) -> None:
    graph = load_graph(document)
    expected, inputs = _drive(graph, failing, 0, forget=False)
    store = open_store(url)
    await store.open()
    try:
        bench = await GraphBench.over(store)
        await bench.publish("step")
        await bench.publish("graph", **document)
        execution = await bench.submit("graph", {"seed": 1})
        while not (ended := await bench.find(execution.id)).status.is_terminal:
            nodes = await bench.nodes(execution.id)
            live = [node for node, (child, _) in nodes.items() if not child.status.is_terminal]
            chosen = rng.sample(live, rng.choice((1, len(live))))
            # Side by side: the store puts them into one transaction, or several.
            ends = [_ended(bench, *nodes[node], node, failing) for node in chosen]
            await asyncio.gather(*ends)
        nodes = await bench.nodes(execution.id)
        result = await store.read(lambda tx: tx.executions.result(execution.id))
        view = await store.read(lambda tx: view_of(tx, ended))
    finally:
        await store.close()
    assert {node: given_input for node, (_, given_input) in nodes.items()} == inputs
    assert (ended.status is Status.COMPLETED) == expected.is_completed
    assert ended.error == expected.failure
    assert result.output == (dict(expected.outputs) if expected.is_completed else None)
    assert ended.metrics.nodes == expected.metrics["nodes"]
    assert view is not None
    assert view.running == ()
    assert [(error.code, error.message) for error in view.errors] == [
        (error.code, error.message) for error in expected.errors.values()
    ]


async def _ended(bench: GraphBench, child: Execution, given_input: Any, node: str, failing: frozenset[str]) -> None:
    await bench.store.write(lambda tx: bench.end(tx, child.id, _outcome(node, given_input, failing)))
