"""What a graph workflow is: nodes, edges, and what they say about order. See `graph` for what they mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from flow_platform.domain.conditions import Condition
from flow_platform.domain.execution import RetryPolicy
from flow_platform.domain.graph_document import edge_name
from flow_platform.domain.graph_mapping import Template
from flow_sdk.wire.status import Kind

GraphType = Literal["single", "sequential", "parallel", "graph"]
Join = Literal["all", "any"]


@dataclass(frozen=True)
class ComponentRef:
    """`kind/slug[@version]`. Without a version: whatever is active in the ring of the run."""

    kind: Kind
    slug: str
    version: int | None = None

    def __str__(self) -> str:
        return f"{self.kind.value}/{self.slug}" + (f"@{self.version}" if self.version else "")


@dataclass(frozen=True)
class Signature:
    """The JSON Schemas of a component, as far as they are known."""

    input_schema: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None


Resolver = Callable[[ComponentRef], Signature | None]
"""Gives a component's schemas, or None when there is no such component or version."""


@dataclass(frozen=True)
class Edge:
    source: str
    target: str
    condition: Condition | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.source, self.target

    @property
    def name(self) -> str:
        return edge_name(self.source, self.target)


@dataclass(frozen=True)
class Node:
    """One component of a graph. `retry` and `timeout_seconds` None: the component's own."""

    id: str
    component_ref: ComponentRef
    input: Template
    join: Join = "all"
    retry: RetryPolicy | None = None
    timeout_seconds: float | None = None


@dataclass(frozen=True)
class Graph:
    """A valid graph; make it with `graph.parse_graph`. `nodes` and `edges` keep the order of the document.

    Attributes:
        outputs: None: what the nodes gave that nothing follows.
    """

    type: GraphType
    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]
    outputs: Template | None = None
    input_schema: dict[str, Any] | None = field(default=None, compare=False)

    @cached_property
    def incoming(self) -> Mapping[str, tuple[Edge, ...]]:
        found: dict[str, list[Edge]] = {node: [] for node in self.nodes}
        for edge in self.edges:
            found[edge.target].append(edge)
        return {node: tuple(edges) for node, edges in found.items()}

    @cached_property
    def outgoing(self) -> Mapping[str, tuple[Edge, ...]]:
        found: dict[str, list[Edge]] = {node: [] for node in self.nodes}
        for edge in self.edges:
            found[edge.source].append(edge)
        return {node: tuple(edges) for node, edges in found.items()}

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Sources before targets; a node of a cycle, and what follows only from one, is left out."""
        left = {node: len(edges) for node, edges in self.incoming.items()}
        ready = [node for node, count in left.items() if not count]
        for node in ready:  # Grows while it is walked.
            for edge in self.outgoing[node]:
                left[edge.target] -= 1
                if not left[edge.target]:
                    ready.append(edge.target)
        return tuple(ready)

    @cached_property
    def upstream(self) -> Mapping[str, frozenset[str]]:
        """Per node, all nodes from which edges lead to it."""
        found: dict[str, frozenset[str]] = dict.fromkeys(self.nodes, frozenset())
        for node in self.order:
            sources = {edge.source for edge in self.incoming[node]}
            found[node] = frozenset(sources).union(*(found[source] for source in sources))
        return found
