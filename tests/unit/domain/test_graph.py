"""Definitions of graph workflows: what they mean, and every way in which they are refused."""

from __future__ import annotations

from typing import Any

import pytest

from flow_platform.domain import errors
from flow_platform.domain.execution import RetryPolicy
from flow_platform.domain.graph import ComponentRef, Graph, Signature, load_graph, parse_graph
from flow_platform.domain.graph_mapping import parse_reference
from flow_sdk.wire.status import Kind


def _node(node_id: str, **fields: Any) -> dict[str, Any]:
    return {"id": node_id, "component_ref": "code_block/step", **fields}


def _edge(source: str, target: str, condition: str | None = None) -> dict[str, Any]:
    return {"source": source, "target": target} | ({"condition": condition} if condition is not None else {})


def _graph(nodes: str, *edges: str, **fields: Any) -> dict[str, Any]:
    """`_graph("a b c", "a b", "b c")`; with several edges to a node, its input is the workflow's."""
    targets = [edge.split()[1] for edge in edges]
    return {
        "nodes": [_node(node, **({"input": {}} if targets.count(node) > 1 else {})) for node in nodes.split()],
        "edges": [_edge(*edge.split()) for edge in edges],
        **fields,
    }


def _problems(document: Any, resolve: Any = lambda _: Signature()) -> list[str]:
    with pytest.raises(errors.InvalidInput) as caught:
        parse_graph(document, resolve)
    details = [f"{detail['field']}: {detail['message']}" for detail in caught.value.details]
    assert caught.value.message.startswith(details[0])
    return details


def test_reads_every_field():
    document = {
        "type": "graph",
        "nodes": [
            _node("fetch", type="code_block"),
            {
                "id": "store",
                "component_ref": "transform/to-row@3",
                "type": "transform",
                "input": {"row": "$.nodes.fetch.output.row", "limit": 10},
                "retry": {"max_attempts": 3, "initial_interval_seconds": 0.5},
                "timeout_seconds": 30,
                "join": "any",
            },
        ],
        "edges": [_edge("fetch", "store", "outputs.fetch.ok")],
        "outputs": {"stored": "$.nodes.store.output"},
    }
    graph = parse_graph(document, lambda _: Signature())
    store = graph.nodes["store"]
    assert store.component_ref == ComponentRef(Kind.TRANSFORM, "to-row", 3)
    assert str(store.component_ref) == "transform/to-row@3"
    assert store.retry == RetryPolicy(max_attempts=3, initial_interval_seconds=0.5)
    assert (store.timeout_seconds, store.join) == (30, "any")
    assert graph.nodes["fetch"].retry is None
    assert graph.edges[0].condition is not None
    assert graph.order == ("fetch", "store")
    assert load_graph(document) == graph


def test_a_sequence_is_a_chain():
    graph = load_graph(_graph("a b c", type="sequential"))
    assert [edge.key for edge in graph.edges] == [("a", "b"), ("b", "c")]
    assert graph.nodes["a"].input.value == parse_reference("$.inputs")
    assert graph.nodes["c"].input.value == parse_reference("$.nodes.b.output")


def test_nodes_side_by_side():
    graph = load_graph(_graph("a b c", type="parallel"))
    assert graph.edges == ()
    assert all(node.input.value == parse_reference("$.inputs") for node in graph.nodes.values())
    assert load_graph(_graph("a", type="single")).order == ("a",)


def test_upstream_is_everything_before():
    graph = load_graph(_graph("a b c d e", "a b", "b d", "c d", "d e"))
    assert graph.upstream["d"] == {"a", "b", "c"}
    assert graph.upstream["a"] == frozenset()


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({}, "nodes: is required"),
        ([], "graph: "),
        ({"nodes": []}, "nodes: expected at least 1, got none"),
        ({"nodes": [{"id": "a"}]}, "node 'a'.component_ref: is required"),
        ({"nodes": [_node("a b")]}, "node 'a b'.id: expected 1 to 63 letters"),
        ({"nodes": [_node("a", component_ref="step")]}, "node 'a'.component_ref: expected kind/slug"),
        ({"nodes": [_node("a", component_ref="tool/step")]}, "node 'a'.component_ref: expected kind/slug"),
        ({"nodes": [_node("a", component_ref="agent/St ep")]}, "node 'a'.component_ref: slug 'St ep'"),
        ({"nodes": [_node("a", component_ref="agent/step@0")]}, "node 'a'.component_ref: expected kind/slug"),
        ({"nodes": [_node("a", component_ref="agent/step@x")]}, "node 'a'.component_ref: expected kind/slug"),
        ({"nodes": [_node("a", conditon="x")]}, "node 'a'.conditon: is no field that is known here"),
        ({"nodes": [_node("a", join="some")]}, "node 'a'.join: "),
        ({"nodes": [_node("a", timeout_seconds=0)]}, "node 'a'.timeout_seconds: "),
        ({"nodes": [_node("a", retry={"max_attempts": 0})]}, "node 'a'.retry.max_attempts: "),
        ({"nodes": [_node("a")], "type": "loop"}, "type: "),
        ({"nodes": [_node("a"), _node("b")], "edges": [{"source": "a"}]}, "edges[0].target: is required"),
        (
            {"nodes": [_node("a")], "edges": [{"source": "a", "target": "b", "when": "x"}]},
            "edge 'a' -> 'b'.when: is no field",
        ),
        ({"nodes": [_node(f"n{index}") for index in range(501)]}, "nodes: expected at most 500, got 501"),
        ({"nodes": [_node("a")], "edges": [_edge("a", "b")] * 2001}, "edges: expected at most 2000, got 2001"),
        (_graph("a b a", "a b"), "node 'a': the id is used 2 times"),
        (_graph("a b", "a b", "a b"), "edge 'a' -> 'b': is there 2 times"),
        (_graph("a b", "a b", "a z"), "edge 'a' -> 'z': node 'z' is unknown: expected one of 'a', 'b'"),
        (_graph("a b", "a b", "a a"), "edge 'a' -> 'a': leads to itself"),
        ({"nodes": [_node("a", type="agent")]}, "node 'a'.type: expected 'code_block'"),
        (_graph("a b", type="single"), "nodes: expected one node"),
        (_graph("a b", "a b", type="parallel"), "edge 'a' -> 'b': expected no edges"),
        (_graph("a b c", "a c", type="sequential"), "edge 'a' -> 'c': expected edges from each node to the next"),
        (_graph("a b c", "a b", type="sequential"), "edge 'b' -> 'c': is missing"),
        (_graph("a b c d", "a b", "b c", "c b", "c d"), "edge 'c' -> 'b': closes a cycle: b -> c -> b"),
        (_graph("a b", "a b", "b a"), "edge 'b' -> 'a': closes a cycle: a -> b -> a"),
        (_graph("a b c", "a b"), "node 'c': is unreachable: no edge leads to it or from it"),
        (_graph("a b c", "a c", "b c") | {"nodes": [_node(n) for n in "abc"]}, "node 'c'.input: is required: 2 edges"),
    ],
)
def test_refused(document: Any, expected: str):
    assert any(problem.startswith(expected) for problem in _problems(document)), _problems(document)


def test_a_node_that_is_wrong_is_not_told_as_a_missing_one_as_well():
    [problem] = _problems({"nodes": [_node("a", component_ref="step")]})
    assert problem.startswith("node 'a'.component_ref: "), problem


def test_a_node_behind_a_condition_that_never_holds_is_unreachable():
    document = _graph("a b c") | {"edges": [_edge("a", "b", "1 > 2"), _edge("b", "c")]}
    assert _problems(document) == [
        "node 'b': is unreachable: the condition of edge 'a' -> 'b' never holds",
        "node 'c': is unreachable: node 'b' before it never runs",
    ]
    merged = _graph("a b c", "a b", "a c", "b c") | {
        "edges": [_edge("a", "b"), _edge("a", "c", "false"), _edge("b", "c")]
    }
    assert _problems(merged) == ["node 'c': is unreachable: the condition of edge 'a' -> 'c' never holds"]
    merged["nodes"][2]["join"] = "any"
    assert isinstance(load_graph(merged), Graph)


def test_bad_conditions_and_mappings_are_all_reported():
    document = {
        "nodes": [_node("a"), _node("b", input={"x": "$.nodes.a.result"})],
        "edges": [_edge("a", "b", "outputs.a >")],
        "outputs": {"y": ["$.nope"]},
    }
    first, second, third = _problems(document)
    assert first.startswith("edge 'a' -> 'b': condition 'outputs.a >' is not valid: Syntax error")
    assert second.startswith("node 'b'.input.x: path '$.nodes.a.result' is not valid")
    assert third.startswith("outputs.y[0]: path '$.nope' is not valid")


def test_only_what_came_before_can_be_read():
    document = _graph("a b c d", "a b", "a c", "c d")
    document["nodes"][1]["input"] = {"x": ["$.nodes.c.output"], "y": "$.nodes.zz.output"}
    document["edges"][2]["condition"] = "outputs.b.x == 1 || has(errors.zz)"
    document["outputs"] = {"o": "$.nodes.zz.output"}
    assert _problems(document) == [
        "edge 'c' -> 'd': the condition reads node 'b', which does not come before it: expected one of 'a', 'c'",
        "edge 'c' -> 'd': the condition reads node 'zz', which is unknown: expected one of 'a', 'c'",
        "node 'b'.input.x[0]: '$.nodes.c.output' reads node 'c', which does not come before it: expected one of 'a'",
        "node 'b'.input.y: '$.nodes.zz.output' reads node 'zz', which is unknown: expected one of 'a'",
        "outputs.o: '$.nodes.zz.output' reads node 'zz', which is unknown: expected one of 'a', 'b', 'c', 'd'",
    ]


_TYPED = {
    "make": Signature(output_schema={"type": "object", "properties": {"n": {"type": "integer"}}}),
    "use": Signature(
        input_schema={
            "type": "object",
            "properties": {"text": {"type": "string"}, "count": {"type": "integer"}},
            "required": ["text"],
            "additionalProperties": False,
        }
    ),
}


def _typed(use_input: Any = None, **fields: Any) -> dict[str, Any]:
    use = {"id": "use", "component_ref": "code_block/use"} | ({} if use_input is None else {"input": use_input})
    return {
        "nodes": [{"id": "make", "component_ref": "code_block/make"}, use],
        "edges": [_edge("make", "use")],
        **fields,
    }


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (
            _typed({"text": "$.nodes.make.output.n"}),
            "node 'use'.input.text: '$.nodes.make.output.n' from node 'make' does not fit: "
            "expected string, got integer",
        ),
        (_typed({"text": "$.nodes.make.output.m"}), "node 'use'.input.text: '$.nodes.make.output.m': there is no 'm'"),
        (_typed({"count": 1}), "node 'use'.input: expected also 'text': required"),
        (_typed({"text": "a", "more": 1}), "node 'use'.input: expected only count, text, got 'more'"),
        (_typed({"text": "a", "count": "b"}), "node 'use'.input.count: expected integer, got 'b'"),
        (_typed(), "node 'use'.input: '$.nodes.make.output' from node 'make' does not fit: expected 'text'"),
        (
            _typed({"text": "$.inputs.t"}, input_schema={"type": "object", "properties": {"t": {"type": "array"}}}),
            "node 'use'.input.text: '$.inputs.t' does not fit: expected string, got array",
        ),
        (_typed({"text": "a"}, outputs={"x": "$.nodes.make.output.y"}), "outputs.x: '$.nodes.make.output.y': there is"),
    ],
)
def test_types_that_cannot_fit(document: Any, expected: str):
    problems = _problems(document, lambda ref: _TYPED[ref.slug])
    assert len(problems) == 1
    assert problems[0].startswith(expected), problems


def test_types_that_fit():
    mapping = {"text": "$.nodes.make.error.message", "count": "$.nodes.make.output.n"}
    parse_graph(_typed(mapping), lambda ref: _TYPED[ref.slug])


def test_unknown_components():
    asked: list[ComponentRef] = []

    def resolve(ref: ComponentRef) -> Signature | None:
        asked.append(ref)
        return None

    assert _problems(_graph("a b", "a b"), resolve) == [
        "node 'a'.component_ref: 'code_block/step' is not published here",
        "node 'b'.component_ref: 'code_block/step' is not published here",
    ]
    assert asked == [ComponentRef(Kind.CODE_BLOCK, "step")]


def test_a_graph_at_its_limits_is_read():
    nodes = [_node(f"n{index}", input={}) for index in range(500)]
    edges = [_edge(f"n{index}", f"n{index + step}") for step in range(1, 6) for index in range(500 - step)][:2000]
    assert len(load_graph({"nodes": nodes, "edges": edges}).order) == 500
