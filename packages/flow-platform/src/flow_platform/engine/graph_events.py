"""What a graph tells of its nodes while it runs: events of its own execution, in the transaction of the step.

`node_started`, `node_completed`, `node_failed` and `node_skipped`, each once per node. A step is found anew from what
is recorded, so what was told before is looked up by the keys of the events, and only the rest is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from flow_platform.domain.execution import Execution
from flow_platform.domain.graph_model import Graph
from flow_platform.domain.graph_run import Advance, why_skipped
from flow_platform.store.base import NewEvent, Transaction

MAX_MESSAGE: Final = 2_000
"""Characters of an error that an event shows; the whole of it is in the record of the node."""


class NodeEvents:
    """Of one step.

    Args:
        children: Executions by node; grows while the step goes on.
        is_first: Nothing was told before.
    """

    def __init__(
        self,
        tx: Transaction,
        execution: Execution,
        graph: Graph,
        children: Mapping[str, str],
        now: datetime,
        *,
        is_first: bool,
    ) -> None:
        self._execution = execution
        self._graph = graph
        self._children = children
        self._now = now
        self._told = set[str]() if is_first else set(tx.executions.event_keys(execution.id))
        self._new: list[NewEvent] = []

    def decided(self, found: Advance) -> None:
        """Tells what ended and what will not run."""
        outcomes = found.state.outcomes
        for node in self._graph.nodes:
            outcome = outcomes.get(node)
            if outcome is None or self._is_told(node, "end"):
                continue
            if outcome.status == "completed":
                self._tell(node, "node_completed", "end", {})
            else:
                error = outcome.error
                said = {"code": error.code, "type": error.type, "message": error.message[:MAX_MESSAGE]} if error else {}
                self._tell(node, "node_failed", "end", {"error": said})
        for node in found.skipped:
            if not self._is_told(node, "end"):
                self._tell(node, "node_skipped", "end", {"edges": why_skipped(self._graph, found, node)})

    def started(self, node: str, *, is_kept: bool) -> None:
        """Tells of a node that was started, or for which an execution of the repeated graph stands."""
        if not self._is_told(node, "start"):
            self._tell(node, "node_started", "start", {"kept": True} if is_kept else {})

    def events(self) -> Iterable[NewEvent]:
        return self._new

    def _is_told(self, node: str, what: str) -> bool:
        return _key(node, what) in self._told

    def _tell(self, node: str, event_type: str, what: str, more: Mapping[str, Any]) -> None:
        key = _key(node, what)
        self._told.add(key)
        data: dict[str, Any] = {"node": node, "component": str(self._graph.nodes[node].component_ref)}
        if node in self._children:
            data["execution_id"] = self._children[node]
        execution = self._execution
        self._new.append(NewEvent(execution.id, execution.attempt, event_type, data | dict(more), self._now, key))


def _key(node: str, what: str) -> str:
    return f"node:{node}:{what}"
