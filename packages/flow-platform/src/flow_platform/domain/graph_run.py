"""One run of a graph, decided step by step: what starts next, what is skipped, what came out.

`advance` looks at what has ended and says what follows; whoever runs the nodes records their outcomes and asks again.
Nothing here waits, and nothing depends on the order in which outcomes arrive: an edge is decided, and an input
resolved, only when everything that they read has ended. So a run may be stopped anywhere and taken up again from the
recorded outcomes alone.

A failed node does not stop the run: what does not depend on it goes on, and what follows it is skipped, unless an
edge whose condition reads `errors` leads on. A run completed when each failure was handled by such an edge.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from flow_platform.domain import errors
from flow_platform.domain.graph_model import Edge, Graph
from flow_platform.domain.graph_result import NodeOutcome, Outcome, Result, conclude
from flow_sdk.wire.execution import ErrorDocument, MetricsDocument

EdgeKey = tuple[str, str]

MAX_EDGES_TOLD: Final = 20
"""In one event; a node may have 2,000."""


@dataclass(frozen=True)
class EdgeDecision:
    """Whether an edge was taken, for good. `error`: its condition could not be decided; then it is not taken."""

    taken: bool
    error: ErrorDocument | None = None


@dataclass(frozen=True)
class RunState:
    """What is known of a run.

    Attributes:
        outcomes: Of the nodes that have ended; also of those whose input could not be made, which never started.
        started: Nodes that were handed out and need not be handed out again.
        edges: What `advance` has decided already. A memory, not a record: leave it out, and it is found again.
    """

    inputs: Any
    outcomes: Mapping[str, NodeOutcome] = field(default_factory=dict[str, NodeOutcome])
    started: frozenset[str] = frozenset()
    edges: Mapping[EdgeKey, EdgeDecision] = field(default_factory=dict[EdgeKey, EdgeDecision])

    def with_started(self, *nodes: str) -> RunState:
        return dataclasses.replace(self, started=self.started.union(nodes))

    def with_outcome(self, node: str, outcome: NodeOutcome) -> RunState:
        """The state after a node ended. The first outcome of a node stays; a later one changes nothing."""
        if node in self.outcomes:
            return self
        return dataclasses.replace(self, outcomes={**self.outcomes, node: outcome})


@dataclass(frozen=True)
class Start:
    """A node that shall run now, with this input."""

    node: str
    input: Any


@dataclass(frozen=True)
class Advance:
    """What follows from a state.

    Attributes:
        state: The given state with all that was decided on the way. Carry on with it.
        start: In the order of the graph.
        skipped: Nodes that will not run, in the order of the graph.
        result: Set when the run is over.
    """

    state: RunState
    start: tuple[Start, ...]
    skipped: tuple[str, ...]
    result: Result | None


def advance(graph: Graph, state: RunState) -> Advance:
    """Decides what follows. Calling it again with the state that it gave changes nothing."""
    return _Walk(graph, state).run()


def why_skipped(graph: Graph, found: Advance, node: str) -> list[dict[str, Any]]:
    """The edges to a skipped node that were not taken, each with its condition and why."""
    skipped = frozenset(found.skipped)
    told: list[dict[str, Any]] = []
    for edge in graph.incoming[node]:
        reason = _why_not_taken(edge, found.state, skipped)
        if reason is not None:
            condition = {"condition": edge.condition.text} if edge.condition else {}
            told.append({"source": edge.source, **condition, "reason": reason})
    return told[:MAX_EDGES_TOLD]


def _why_not_taken(edge: Edge, state: RunState, skipped: frozenset[str]) -> str | None:
    if edge.source in skipped:
        return f"node {edge.source!r} was skipped"
    decision = state.edges.get(edge.key)
    if decision is not None and not decision.taken and edge.condition is not None:
        if decision.error is not None:
            return f"the condition could not be decided: {decision.error.message}"
        if edge.source in state.outcomes and state.outcomes[edge.source].status == "completed":
            return "the condition is false"
    outcome = state.outcomes.get(edge.source)
    if outcome is not None and outcome.status == "failed" and not (decision and decision.taken):
        return f"node {edge.source!r} failed"
    return None


class _Walk:
    """One pass over the graph, sources first, so that what one node decides is known to those after it."""

    def __init__(self, graph: Graph, state: RunState) -> None:
        self._graph = graph
        self._state = state
        self._outcomes = dict(state.outcomes)
        self._edges = dict(state.edges)
        self._skipped: set[str] = set()
        self._outputs = _Outputs()
        self._failures = _Failures()

    def run(self) -> Advance:
        start: list[Start] = []
        running = False
        for node in self._graph.order:
            if node not in self._outcomes:
                match self._decide(node):
                    case "skip":
                        self._skipped.add(node)
                    case Start() as ready:
                        start.append(ready)
                    case ErrorDocument() as error:
                        self._outcomes[node] = Outcome("failed", error=error)
                    case _:
                        running = True
            self._publish(node)
        skipped = tuple(node for node in self._graph.nodes if node in self._skipped)
        if start or running:
            places = {node: place for place, node in enumerate(self._graph.nodes)}
            ordered = tuple(sorted(start, key=lambda ready: places[ready.node]))
            return Advance(self._decided(), ordered, skipped, None)
        result = self._result()
        return Advance(self._decided(), (), skipped, result)

    def _decided(self) -> RunState:
        return dataclasses.replace(self._state, outcomes=self._outcomes, edges=self._edges)

    def _decide(self, node: str) -> Start | ErrorDocument | Literal["skip", "wait"]:
        if node in self._state.started:
            return "wait"
        edges = self._graph.incoming[node]
        join = self._join_all if self._graph.nodes[node].join == "all" else self._join_any
        joined = join(edges) if edges else "start"
        if joined != "start":
            return joined
        template = self._graph.nodes[node].input
        if not all(self._is_settled(reference.node) for _, reference in template.references() if reference.node):
            return "wait"
        try:
            return Start(node, template.resolve(self._state.inputs, self._outputs, self._failures))
        except errors.InvalidInput as error:
            return _error(error)

    def _join_all(self, edges: tuple[Edge, ...]) -> Literal["start", "skip", "wait"]:
        if any(self._is_settled(edge.source) and self._is_dead(edge) for edge in edges):
            return "skip"
        # Conditions last, and all at once: a wide join would otherwise be read at the end of each of its sources.
        if not all(self._is_settled(edge.source) for edge in edges):
            return "wait"
        taken = [self._is_taken(edge) for edge in edges]
        if None in taken:
            return "wait"
        return "start" if all(taken) else "skip"

    def _join_any(self, edges: tuple[Edge, ...]) -> Literal["start", "skip", "wait"]:
        undecided = False
        for edge in edges:
            taken = self._is_taken(edge)
            if taken:
                return "start"
            undecided = undecided or taken is None
        return "wait" if undecided else "skip"

    def _is_dead(self, edge: Edge) -> bool:
        """Whether the edge is not taken, whatever its condition says, given that its source is settled."""
        outcome = self._outcomes.get(edge.source)
        if outcome is None:
            return True
        return outcome.status == "failed" and (edge.condition is None or "errors" not in edge.condition.reads.paths)

    def _is_taken(self, edge: Edge) -> bool | None:
        """None while that is not decided."""
        if edge.key not in self._edges:
            decision = self._decision(edge)
            if decision is None:
                return None
            self._edges[edge.key] = decision
        return self._edges[edge.key].taken

    def _decision(self, edge: Edge) -> EdgeDecision | None:
        if not self._is_settled(edge.source):
            return None
        condition = edge.condition
        if self._is_dead(edge) or condition is None:
            return EdgeDecision(taken=not self._is_dead(edge))
        visible = self._graph.upstream[edge.source] | {edge.source}
        read = condition.reads.nodes()
        if not all(self._is_settled(node) for node in (visible if read is None else read)):
            return None
        shown = visible if read is None else visible & read
        outputs = {node: self._outputs[node] for node in shown if node in self._outputs}
        failures = {node: self._failures[node] for node in shown if node in self._failures}
        try:
            return EdgeDecision(condition.evaluate(self._state.inputs, outputs, failures))
        except errors.InvalidInput as error:
            return EdgeDecision(taken=False, error=_error(error))

    def _publish(self, node: str) -> None:
        """Makes an outcome visible to mappings and conditions."""
        outcome = self._outcomes.get(node)
        if outcome is None:
            return
        (self._outputs if outcome.status == "completed" else self._failures).known[node] = outcome

    def _is_settled(self, node: str) -> bool:
        return node in self._outcomes or node in self._skipped

    def _result(self) -> Result:
        # Nothing is left to run, so every edge can be decided; those that nobody asked for yet are decided here.
        handled = {edge.source for edge in self._graph.edges if self._is_taken(edge)}
        refused = {edge.name: found.error for edge in self._graph.edges if (found := self._edges[edge.key]).error}
        return conclude(
            self._graph, self._state.inputs, self._outcomes, handled, refused, self._outputs, self._failures
        )


class _Lookup(Mapping[str, Any]):
    """What nodes gave, read only when something asks for it: most steps of a run need none of it."""

    def __init__(self) -> None:
        self.known: dict[str, NodeOutcome] = {}

    def __contains__(self, node: object) -> bool:
        return node in self.known

    def __iter__(self) -> Iterator[str]:
        return iter(self.known)

    def __len__(self) -> int:
        return len(self.known)


class _Outputs(_Lookup):
    def __getitem__(self, node: str) -> Any:
        return self.known[node].output


class _Failures(_Lookup):
    def __getitem__(self, node: str) -> Any:
        error = self.known[node].error or ErrorDocument(code="unknown")
        return {"code": error.code, "type": error.type, "message": error.message}


def _error(error: errors.FlowError) -> ErrorDocument:
    # A second attempt would read the same data.
    return ErrorDocument(code=error.error_code, message=error.message, retryable=False)


def completed(output: Any, metrics: MetricsDocument | None = None) -> Outcome:
    return Outcome("completed", output, metrics=metrics)


def failed(error: ErrorDocument, metrics: MetricsDocument | None = None) -> Outcome:
    return Outcome("failed", error=error, metrics=metrics)
