"""What can be wrong with a graph, found when it is published. Each check yields `{"field", "message"}`."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

from flow_platform.domain import errors, schema_fit
from flow_platform.domain.graph_document import GraphDocument, edge_name
from flow_platform.domain.graph_mapping import Reference
from flow_platform.domain.graph_model import ComponentRef, Edge, Graph, Node, Resolver, Signature

Problem = dict[str, Any]


def shape_problems(document: GraphDocument) -> Iterator[Problem]:
    """Duplicates, edges that lead nowhere or to themselves, and what a type of graph does not allow."""
    ids = [node.id for node in document.nodes]
    for node_id, count in Counter(ids).items():
        if count > 1:
            yield _problem(f"node {node_id!r}", f"the id is used {count} times: expected it once")
    for (source, target), count in Counter((edge.source, edge.target) for edge in document.edges).items():
        name = edge_name(source, target)
        if count > 1:
            yield _problem(name, f"is there {count} times: expected once; join conditions with ||")
        for node_id in dict.fromkeys((source, target)):
            if node_id not in ids:
                yield _problem(name, f"node {node_id!r} is unknown: expected one of {_some(ids)}")
        if source == target:
            yield _problem(name, "leads to itself: expected two nodes")
    for node in document.nodes:
        kind = node.component_ref.partition("/")[0]
        if node.type not in (None, kind):
            yield _problem(f"node {node.id!r}.type", f"expected {kind!r}, as in component_ref, got {node.type!r}")
    yield from _type_problems(document, ids)


def _type_problems(document: GraphDocument, ids: list[str]) -> Iterator[Problem]:
    match document.type:
        case "single" if len(ids) > 1:
            yield _problem("nodes", f"expected one node in a graph of type 'single', got {len(ids)}")
        case "single" | "parallel" if document.edges:
            edge = document.edges[0]
            name = edge_name(edge.source, edge.target)
            yield _problem(name, f"expected no edges in a graph of type {document.type!r}")
        case "sequential" if document.edges:
            chain = list(itertools.pairwise(ids))
            for edge in document.edges:
                if (edge.source, edge.target) not in chain:
                    name = edge_name(edge.source, edge.target)
                    yield _problem(name, "expected edges from each node to the next in a graph of type 'sequential'")
            given = {(edge.source, edge.target) for edge in document.edges}
            for source, target in chain:
                if (source, target) not in given:
                    yield _problem(edge_name(source, target), "is missing: give all edges of the sequence, or none")
        case _:
            pass


def structure_problems(graph: Graph) -> Iterator[Problem]:
    """Cycles, and nodes that can never run."""
    cycle = find_cycle(graph)
    if cycle:
        yield _problem(edge_name(cycle[-2], cycle[-1]), f"closes a cycle: {' -> '.join(cycle)}")
        return
    if graph.type == "graph" and len(graph.nodes) > 1:
        for node in graph.nodes:
            if not graph.incoming[node] and not graph.outgoing[node]:
                yield _problem(f"node {node!r}", "is unreachable: no edge leads to it or from it")
    never: dict[tuple[str, str], str] = {}
    for node_id in graph.order:
        dead = [edge for edge in graph.incoming[node_id] if edge.key in never]
        stuck = dead and (graph.nodes[node_id].join == "all" or len(dead) == len(graph.incoming[node_id]))
        if stuck:
            reasons = dict.fromkeys(never[edge.key] for edge in dead)
            yield _problem(f"node {node_id!r}", f"is unreachable: {'; '.join(reasons)}")
        for edge in graph.outgoing[node_id]:
            if stuck:
                never[edge.key] = f"node {node_id!r} before it never runs"
            elif _is_never_taken(edge):
                never[edge.key] = f"the condition of {edge.name} never holds"


def find_cycle(graph: Graph) -> list[str]:
    """The nodes of one cycle, the first one again at the end; empty when there is none."""
    left = set(graph.nodes) - set(graph.order)
    # Every node that is left has a predecessor that is left, so walking backwards runs into a cycle.
    walked: list[str] = []
    node = next((node for node in graph.nodes if node in left), None)
    while node is not None and node not in walked:
        walked.append(node)
        node = next(edge.source for edge in graph.incoming[node] if edge.source in left)
    if node is None:
        return []
    return [node, *reversed(walked[walked.index(node) :])]


def mapping_problems(graph: Graph) -> Iterator[Problem]:
    """Conditions and mappings that read nodes which need not have ended by then."""
    for edge in graph.edges:
        visible = graph.upstream[edge.source] | {edge.source}
        for node_id in sorted((edge.condition.reads.nodes() or frozenset()) if edge.condition else ()):
            if node_id not in visible:
                yield _problem(edge.name, f"the condition reads {_not_visible(graph, node_id, visible)}")
    for node in graph.nodes.values():
        for field, reference in node.input.references():
            if reference.node is not None and reference.node not in graph.upstream[node.id]:
                problem = _not_visible(graph, reference.node, graph.upstream[node.id])
                yield _problem(_place(node, field), f"{reference.text!r} reads {problem}")
    if graph.outputs is not None:
        for field, reference in graph.outputs.references():
            if reference.node is not None and reference.node not in graph.nodes:
                problem = _not_visible(graph, reference.node, frozenset(graph.nodes))
                yield _problem(f"outputs.{field}", f"{reference.text!r} reads {problem}")


def component_problems(
    graph: Graph, document: GraphDocument, resolve: Resolver, *, check_types: bool
) -> Iterator[Problem]:
    """Components that do not exist, and data that cannot be what its receiver wants."""
    found: dict[ComponentRef, Signature | None] = {}
    for node in document.nodes:
        ref = graph.nodes[node.id].component_ref
        if ref not in found:
            found[ref] = resolve(ref)
        if found[ref] is None:
            yield _problem(f"node {node.id!r}.component_ref", f"{node.component_ref!r} is not published here")
    if not check_types:
        return
    signatures = {node.id: found[node.component_ref] or Signature() for node in graph.nodes.values()}
    for node in graph.nodes.values():
        yield from _input_problems(graph, node, signatures)
    for field, reference in graph.outputs.references() if graph.outputs else ():
        try:
            _located(graph, reference, signatures)
        except schema_fit.NoSuchMember as error:
            yield _problem(f"outputs.{field}", f"{reference.text!r}: there is no {error}")


def _input_problems(graph: Graph, node: Node, signatures: dict[str, Signature]) -> Iterator[Problem]:
    wanted = schema_fit.locate(signatures[node.id].input_schema, ())
    broken = False
    for field, reference in node.input.references():
        try:
            _located(graph, reference, signatures)
        except schema_fit.NoSuchMember as error:
            broken = True
            yield _problem(_place(node, field), f"{reference.text!r}: there is no {error}")
    if broken or wanted.schema is None:
        return
    if not isinstance(node.input.value, dict):
        yield from _value_problems(graph, node, "", node.input.value, wanted, signatures)
        return
    members: dict[str, Any] = node.input.value  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType] - JSON.
    problem = schema_fit.members_misfit(set(members), wanted)
    if problem:
        yield _problem(_place(node, ""), problem)
    for name, value in members.items():
        try:
            target = schema_fit.locate(signatures[node.id].input_schema, (name,))
        except schema_fit.NoSuchMember:
            continue  # Whether more members are allowed was asked above.
        yield from _value_problems(graph, node, name, value, target, signatures)


def _value_problems(
    graph: Graph, node: Node, field: str, value: Any, target: schema_fit.Located, signatures: dict[str, Signature]
) -> Iterator[Problem]:
    if not isinstance(value, Reference):
        problem = schema_fit.value_misfit(value, target)
        if problem:
            yield _problem(_place(node, field), problem)
        return
    problem = schema_fit.misfit(_located(graph, value, signatures), target)
    if problem:
        origin = f" from node {value.node!r}" if value.node else ""
        yield _problem(_place(node, field), f"{value.text!r}{origin} does not fit: {problem}")


def _located(graph: Graph, reference: Reference, signatures: dict[str, Signature]) -> schema_fit.Located:
    match reference.source:
        case "inputs":
            return schema_fit.locate(graph.input_schema, reference.path)
        case "output" if reference.node is not None:
            return schema_fit.locate(signatures[reference.node].output_schema, reference.path)
        case _:
            return schema_fit.locate(None, ())


def _is_never_taken(edge: Edge) -> bool:
    if edge.condition is None or not edge.condition.reads.is_constant:
        return False
    try:
        return not edge.condition.evaluate({}, {}, {})
    except errors.InvalidInput:
        return True


def _not_visible(graph: Graph, node_id: str, visible: frozenset[str]) -> str:
    if node_id not in graph.nodes:
        return f"node {node_id!r}, which is unknown: expected one of {_some(list(visible))}"
    return f"node {node_id!r}, which does not come before it: expected one of {_some(list(visible))}"


def _some(ids: list[str]) -> str:
    shown = ", ".join(repr(node_id) for node_id in sorted(ids)[:20])
    return (shown or "none") + (", ..." if len(ids) > 20 else "")


def _place(node: Node, field: str) -> str:
    return f"node {node.id!r}.input" + (f".{field}" if field else "")


def _problem(field: str, message: str) -> Problem:
    return {"field": field, "message": message}
