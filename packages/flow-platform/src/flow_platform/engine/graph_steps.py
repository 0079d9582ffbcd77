"""One step of a graph workflow: from what is recorded of it to what follows, inside the calling transaction.

Nothing is kept of a run but its calls (one per node that was started; the key is the node's id) and the executions
that stand for them. What follows is found anew at each step (`domain/graph_run.py`), so a step that was rolled back,
or an engine that died, left nothing behind, and of two engines the second finds what the first did.

A graph that repeats another (a manual retry) has inherited its calls, as those of an attempt 0. When a node is about to
start, and the other graph ran it with the same component and the same input, that execution stands if it completed, is
joined if it still runs (somebody retried the node by hand), and is repeated if it ended otherwise: so a workflow among
the nodes keeps what it has done, too. What a graph started itself or took over like this is of attempt 1.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from flow_platform.domain import errors, graph_run, schema_fit
from flow_platform.domain import execution as domain
from flow_platform.domain.execution import Execution
from flow_platform.domain.graph import Graph, Node, load_graph
from flow_platform.domain.graph_result import NodeOutcome, Result
from flow_platform.domain.graph_run import RunState
from flow_platform.domain.replay import Call, stands
from flow_platform.engine.graph_events import NodeEvents
from flow_platform.store import base
from flow_platform.store.base import Transaction
from flow_sdk.wire.execution import ErrorDocument, MetricsDocument
from flow_sdk.wire.status import Kind, Status

INHERITED: Final = 0
OWN: Final = 1
MAX_CACHED: Final = 200
"""Graphs ready to run: versions are immutable; the largest takes 100 ms to make ready and some MB."""

StartNode = Callable[[Execution, Node, Any, str | None], Execution]
"""Makes the execution of a node below its graph, with this input; the last says which earlier one it repeats. It may
have ended already."""


class CannotGoOn(errors.FlowError):
    """A graph that no longer can be run: something that was checked when it was published is gone."""

    code = "graph_broken"


class RecordedOutcome:
    """How the execution of a node ended; read from its record when asked for. See `NodeOutcome`."""

    def __init__(self, tx: Transaction, execution_id: str, status: Status) -> None:
        self._tx = tx
        self._execution_id = execution_id
        self.status: Literal["completed", "failed"] = "completed" if status is Status.COMPLETED else "failed"

    @property
    def output(self) -> Any:
        # Not kept: one may have megabytes, and most are read once in a step.
        return self._tx.executions.result(self._execution_id).output

    @property
    def error(self) -> ErrorDocument | None:
        return self._record.error if self.status == "failed" else None

    @property
    def metrics(self) -> MetricsDocument | None:
        return self._record.metrics

    @functools.cached_property
    def _record(self) -> Execution:
        found = self._tx.executions.find(self._execution_id)
        if found is None:
            raise CannotGoOn(f"execution {self._execution_id!r} is not there any more")
        return found


class Run:
    """What is recorded of one execution of a graph."""

    def __init__(self, tx: Transaction, execution: Execution) -> None:
        self._tx = tx
        self.execution = execution
        self.graph = _graph_of(tx, execution.version_id)
        self._inherited: dict[str, Call] = {}
        self.children: dict[str, str] = {}
        self._made = 0
        self.state = self._recorded_state()

    def _recorded_state(self) -> RunState:
        outcomes: dict[str, NodeOutcome] = {}
        started: set[str] = set()
        for call, status in self._tx.executions.calls_with_status(self.execution.id):
            self._made = max(self._made, call.ordinal)
            if call.key not in self.graph.nodes or call.execution_id is None:
                continue  # Inherited from a version with other nodes.
            if call.attempt == INHERITED:
                self._inherited[call.key] = call
                continue
            self.children[call.key] = call.execution_id
            started.add(call.key)
            if status.is_terminal:
                outcomes[call.key] = RecordedOutcome(self._tx, call.execution_id, status)
        inputs = self._tx.executions.payload(self.execution.id).input_data
        return RunState(inputs, outcomes, frozenset(started))

    def go_on(self, start: StartNode, now: datetime) -> Result | None:
        """Starts what can start, again after what has ended thereby, and tells of it. The result when it is over."""
        is_first = not self.state.started
        told = NodeEvents(self._tx, self.execution, self.graph, self.children, now, is_first=is_first)
        while True:
            found = graph_run.advance(self.graph, self.state)
            told.decided(found)
            self.state = found.state
            ended = False
            for ready in found.start:
                child = self._child(ready.node, ready.input, start)
                told.started(ready.node, is_kept=child.parent_id != self.execution.id)
                self.state = self.state.with_started(ready.node)
                if child.status.is_terminal:
                    ended = True
                    self.state = self.state.with_outcome(ready.node, RecordedOutcome(self._tx, child.id, child.status))
            if not ended:
                self._tx.executions.append_events(list(told.events()))
                return found.result

    def _child(self, node_id: str, input_data: Any, start: StartNode) -> Execution:
        """What stands for a node: taken over, joined, or started now."""
        earlier = self._earlier(node_id, input_data)
        if earlier is not None and stands(earlier.status, ""):
            child = earlier
            if not child.status.is_terminal:  # It stays below the other graph; its end is told here, too: see `ends`.
                self._tx.executions.adopt_child(self.execution.id)
        else:
            repeats = earlier.id if earlier is not None and earlier.status.is_terminal else None
            child = start(self.execution, self.graph.nodes[node_id], input_data, repeats)
        self.children[node_id] = child.id
        if node_id in self._inherited:
            again = dataclasses.replace(self._inherited[node_id], attempt=OWN, execution_id=child.id)
            self._tx.executions.make_call_again(again)
        else:
            self._made += 1
            self._tx.executions.insert_call(
                Call(self.execution.id, node_id, 0, self._made, OWN, OWN, child.id, self._what(node_id))
            )
        return child

    def _earlier(self, node_id: str, input_data: Any) -> Execution | None:
        """The last execution of the node for the graph that this one repeats, if it was the same call."""
        call = self._inherited.get(node_id)
        found = self._tx.executions.find(call.execution_id) if call and call.execution_id else None
        while found is not None and found.retried_as_id is not None:  # By hand, before its graph was.
            found = self._tx.executions.find(found.retried_as_id)
        if call is None or found is None or call.component != self._what(node_id):
            return None
        if self._tx.executions.payload(found.id).input_data != input_data:
            return None
        if found.status.is_terminal:
            return found
        # Locked: of its end at this moment in another process we hear either now or from there.
        return self._tx.executions.find(found.id, for_update=True)

    def _what(self, node_id: str) -> str:
        ref = self.graph.nodes[node_id].component_ref
        return f"{ref.kind.value} {ref.slug!r}"


def take_step(tx: Transaction, graph: Execution, now: datetime, start: StartNode) -> Execution:
    """Takes a waiting graph on as far as it can come now.

    Args:
        graph: As it is in the database, and locked there.

    Returns:
        The graph as it is now.

    Raises:
        CannotGoOn: See there.
    """
    begun = dataclasses.replace(graph, available_at=None, started_at=graph.started_at or now)
    run = Run(tx, begun)
    problem = None if run.state.started else _input_problem(run)
    if problem:
        failed = domain.apply(begun, domain.ExecutionFailed(now, problem))
        tx.executions.update(graph, failed)
        return failed
    result = run.go_on(start, now)
    after = _ended(tx, begun, result, now) if result else begun
    tx.executions.update(graph, after)
    return after


def _input_problem(run: Run) -> ErrorDocument | None:
    """Why the workflow's input surely is not what its `input_schema` asks for."""
    problem = schema_fit.data_misfit(run.state.inputs, schema_fit.locate(run.graph.input_schema, ()))
    if problem is None:
        return None
    return ErrorDocument(code="invalid_input", message=f"the input does not fit: {problem}", retryable=False)


def _ended(tx: Transaction, graph: Execution, result: Result, now: datetime) -> Execution:
    measured = result.metrics
    metrics = MetricsDocument(
        start_ms=measured["start_ms"],
        run_ms=measured["run_ms"],
        cpu_ms=measured["cpu_ms"],
        max_rss_bytes=measured["max_rss_bytes"],
        nodes=measured["nodes"],
    )
    if result.failure is not None:
        return domain.apply(graph, domain.ExecutionFailed(now, result.failure, metrics))
    tx.executions.save_result(graph.id, base.Result(output=dict(result.outputs)))
    return domain.apply(graph, domain.AttemptSucceeded(now, metrics))


@dataclass(frozen=True)
class GraphView:
    """What a status document says of a graph beside its record: nodes that run, in order, and errors so far."""

    running: tuple[str, ...] = ()
    errors: tuple[ErrorDocument, ...] = ()


def view_of(tx: Transaction, execution: Execution) -> GraphView | None:
    """None for anything but a graph that has begun. Reads; changes nothing."""
    if execution.kind is not Kind.WORKFLOW or execution.attempt or execution.started_at is None:
        return None
    if tx.catalog.get_version(execution.version_id).definition.graph is None:
        return None
    try:
        run = Run(tx, execution)
    except CannotGoOn:
        return GraphView()
    found = graph_run.advance(run.graph, run.state)
    outcomes = found.state.outcomes
    if found.result is not None:
        problems: Mapping[str, ErrorDocument] = found.result.errors
    else:
        problems = {
            node: outcomes[node].error or ErrorDocument(code="unknown")
            for node in run.graph.nodes
            if node in outcomes and outcomes[node].status == "failed"
        }
    waited_for = tuple(node for node in run.graph.nodes if node in run.state.started and node not in outcomes)
    return GraphView(waited_for, tuple(_placed(place, error, run) for place, error in problems.items()))


def _placed(place: str, error: ErrorDocument, run: Run) -> ErrorDocument:
    """An error with where it was: the id of a node, an edge, or the mapping of the outputs."""
    if place not in run.graph.nodes:
        where: dict[str, Any] = {"field": place, "message": error.message}
    else:
        where = {"field": f"node {place!r}", "message": error.message, "node": place}
        where |= {"execution_id": run.children[place]} if place in run.children else {}
    return error.model_copy(update={"details": [where, *error.details]})


_graphs: OrderedDict[str, Graph] = OrderedDict()


def _graph_of(tx: Transaction, version_id: str) -> Graph:
    graph = _graphs.get(version_id)
    if graph is None:
        document = tx.catalog.get_version(version_id).definition.graph
        try:
            graph = load_graph(document)
        except errors.InvalidInput as error:
            raise CannotGoOn(
                f"the graph was valid when it was published, and is not any more: {error.message}"
            ) from error
        _graphs[version_id] = graph
        while len(_graphs) > MAX_CACHED:
            _graphs.popitem(last=False)
    return graph
