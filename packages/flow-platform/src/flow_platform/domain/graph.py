"""Graph workflows: nodes that are components, edges that say what follows what.

- `single`: one node. `sequential`: the nodes in their order, each after the one before. `parallel`: all at once, no
  edges. `graph`: as the edges say.
- A node runs when its edges are decided: `join` `all` wants every edge to it taken, `any` at least one. It is skipped
  when that cannot come true any more. An edge is taken when its source completed and its condition, if any, holds;
  after a failed source only a condition that reads `errors` can take it.
- A node with `join: any` starts with the first edge that is taken, as soon as everything that its input reads has
  ended. So what a run does never depends on which of two nodes was faster.
- `input` is a mapping (see `graph_mapping`). Without one, a node gets the workflow's input if no edge leads to it,
  and the output of its source if one edge does; with several edges it must say what it wants.
- `outputs` is a mapping for the result. Without it: the output of each node that nothing follows, by its id.

Everything is checked when a graph is published, and all problems are reported together, each naming node or edge.
"""

from __future__ import annotations

import itertools
from typing import Any

from flow_platform.domain import errors, graph_checks
from flow_platform.domain.conditions import Condition, compile_condition
from flow_platform.domain.execution import RetryPolicy
from flow_platform.domain.graph_document import (
    GraphDocument,
    NodeDocument,
    edge_name,
    parse_document,
    problems_error,
)
from flow_platform.domain.graph_mapping import Reference, Template, parse_template
from flow_platform.domain.graph_model import ComponentRef, Edge, Graph, Node, Resolver, Signature
from flow_sdk.wire.status import Kind

__all__ = ["ComponentRef", "Edge", "Graph", "Node", "Resolver", "Signature", "load_graph", "parse_graph"]


def parse_graph(document: Any, resolve: Resolver) -> Graph:
    """Checks a graph and makes it ready to run.

    Args:
        document: See `graph_document`.
        resolve: Asked once per component reference.

    Raises:
        InvalidInput: One detail per problem, each naming its node or edge: duplicate ids, unknown nodes and
            components, self edges, cycles, unreachable nodes, conditions, mappings, types that cannot fit.
    """
    parsed = parse_document(document)
    problems = list(graph_checks.shape_problems(parsed))
    if problems:
        raise problems_error(problems)
    graph = _build(parsed, problems)
    if not problems:
        problems += graph_checks.structure_problems(graph)
    if not problems:
        problems += graph_checks.mapping_problems(graph)
    problems += graph_checks.component_problems(graph, parsed, resolve, check_types=not problems)
    if problems:
        raise problems_error(problems)
    return graph


def load_graph(document: Any) -> Graph:
    """Makes a graph that was published, and so was checked, ready to run again; asks nobody for its components."""
    return parse_graph(document, lambda _: Signature())


def component_ref(text: str) -> ComponentRef:
    """Reads a reference that has the right form."""
    kind, _, rest = text.partition("/")
    slug, _, version = rest.partition("@")
    return ComponentRef(Kind(kind), slug, int(version) if version else None)


def _build(document: GraphDocument, problems: list[dict[str, Any]]) -> Graph:
    """The graph, as far as its parts can be understood; adds what cannot to `problems`."""
    edges = tuple(
        Edge(edge.source, edge.target, _condition(edge.condition, edge_name(edge.source, edge.target), problems))
        for edge in document.edges
    )
    if document.type == "sequential" and not edges:
        ids = [node.id for node in document.nodes]
        edges = tuple(Edge(source, target) for source, target in itertools.pairwise(ids))
    sources: dict[str, list[str]] = {node.id: [] for node in document.nodes}
    for edge in edges:
        sources[edge.target].append(edge.source)
    return Graph(
        type=document.type,
        nodes={node.id: _node(node, sources[node.id], problems) for node in document.nodes},
        edges=edges,
        outputs=None if document.outputs is None else _template(document.outputs, "outputs", problems),
        input_schema=document.input_schema,
    )


def _node(document: NodeDocument, sources: list[str], problems: list[dict[str, Any]]) -> Node:
    if document.input is not None:
        template = _template(document.input, f"node {document.id!r}.input", problems)
    elif not sources:
        template = Template(Reference("$.inputs", "inputs", None, ()))
    else:
        template = Template(Reference(f"$.nodes.{sources[0]}.output", "output", sources[0], ()))
        if len(sources) > 1:
            message = f"is required: {len(sources)} edges lead to the node, from {', '.join(sources)}"
            problems.append({"field": f"node {document.id!r}.input", "message": message})
    return Node(
        id=document.id,
        component_ref=component_ref(document.component_ref),
        input=template,
        join=document.join,
        retry=RetryPolicy(**document.retry.model_dump()) if document.retry else None,
        timeout_seconds=document.timeout_seconds,
    )


def _condition(text: str | None, where: str, problems: list[dict[str, Any]]) -> Condition | None:
    if text is None:
        return None
    try:
        return compile_condition(text, where)
    except errors.InvalidInput as error:
        problems.append({"field": where, "message": error.message.removeprefix(f"{where}: ")})
        return None


def _template(value: Any, where: str, problems: list[dict[str, Any]]) -> Template:
    try:
        return parse_template(value)
    except errors.InvalidInput as error:
        for detail in error.details:
            place = f"{where}.{detail['field']}" if detail["field"] else where
            problems.append({"field": place, "message": detail["message"]})
        return Template(None)
