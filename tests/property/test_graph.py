"""Whatever the order in which nodes end, and wherever a run is interrupted, it comes to the same end."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from flow_platform.domain.graph import Graph, load_graph
from flow_platform.domain.graph_run import Outcome, RunState, advance, completed, failed
from flow_sdk.wire.execution import ErrorDocument, MetricsDocument

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
def _graphs(draw: st.DrawFn) -> tuple[Graph, frozenset[str]]:
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
    return load_graph({"nodes": nodes, "edges": edges}), frozenset(draw(st.lists(st.sampled_from(ids), max_size=2)))


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
