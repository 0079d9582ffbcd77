"""What a run of a graph gives: `outputs`, `metrics`, `errors`, and whether it completed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from flow_platform.domain import errors
from flow_platform.domain.graph_mapping import Reference, Template
from flow_platform.domain.graph_model import Graph
from flow_sdk.wire.execution import ErrorDocument, MetricsDocument


class NodeOutcome(Protocol):
    """How a node ended: completed with an output, or failed with an error after all its attempts.

    Only `status` is asked for at each step of a run; the others may be read from a record when they are.
    """

    @property
    def status(self) -> Literal["completed", "failed"]: ...

    @property
    def output(self) -> Any: ...

    @property
    def error(self) -> ErrorDocument | None: ...

    @property
    def metrics(self) -> MetricsDocument | None: ...


@dataclass(frozen=True)
class Outcome:
    """A `NodeOutcome` that is known in full."""

    status: Literal["completed", "failed"]
    output: Any = None
    error: ErrorDocument | None = None
    metrics: MetricsDocument | None = None


@dataclass(frozen=True)
class Result:
    """The end of a run.

    Attributes:
        is_completed: Nothing went wrong that no edge handled.
        outputs: As the graph's `outputs` says, else by node.
        errors: By the id of the node or the name of the edge; handled ones as well.
        metrics: `nodes` counts what became of them; times are sums over the nodes, `max_rss_bytes` is the largest.
        failure: Why the run did not complete, for its own error document; names the first node or edge.
    """

    is_completed: bool
    outputs: Mapping[str, Any]
    errors: Mapping[str, ErrorDocument]
    metrics: Mapping[str, Any]
    failure: ErrorDocument | None = None


def conclude(
    graph: Graph,
    inputs: Any,
    outcomes: Mapping[str, NodeOutcome],
    handled: Iterable[str],
    refused: Mapping[str, ErrorDocument | None],
    outputs: Mapping[str, Any],
    failures: Mapping[str, Any],
) -> Result:
    """Sums up a run in which nothing is left to do.

    Args:
        handled: Nodes from which an edge was taken.
        refused: Edges whose condition could not be decided.
        outputs, failures: Of the nodes, as mappings see them.
    """
    failed = {node: outcomes[node] for node in graph.nodes if node in outcomes and outcomes[node].status == "failed"}
    found = {node: outcome.error or ErrorDocument(code="unknown") for node, outcome in failed.items()}
    open_ends = {node: error for node, error in found.items() if node not in set(handled)}
    open_ends |= {name: error for name, error in refused.items() if error}
    given: Mapping[str, Any] = {}
    try:
        given = (graph.outputs or _last_outputs(graph, outputs)).resolve(inputs, outputs, failures)
    except errors.InvalidInput as error:
        open_ends["outputs"] = ErrorDocument(code=error.error_code, message=error.message, retryable=False)
    return Result(
        is_completed=not open_ends,
        outputs=given,
        errors={**found, **open_ends},
        metrics=_metrics(graph, outcomes),
        failure=_failure(open_ends),
    )


def _last_outputs(graph: Graph, outputs: Mapping[str, Any]) -> Template:
    """What the nodes gave that nothing follows."""
    last = [node for node in graph.nodes if not graph.outgoing[node] and node in outputs]
    return Template({node: Reference(f"$.nodes.{node}.output", "output", node, ()) for node in last})


def _failure(open_ends: Mapping[str, ErrorDocument]) -> ErrorDocument | None:
    if not open_ends:
        return None
    (place, error), *others = open_ends.items()
    where = place if place.startswith("edge ") or place == "outputs" else f"node {place!r}"
    more = f" (and {len(others)} more)" if others else ""
    details = [{"field": name, "message": problem.message} for name, problem in list(open_ends.items())[:20]]
    return ErrorDocument(
        code="node_failed" if where.startswith("node ") else error.code,
        type=error.type,
        message=f"{where} failed: {error.message}{more}",
        retryable=error.retryable,
        details=details,
    )


def _metrics(graph: Graph, outcomes: Mapping[str, NodeOutcome]) -> dict[str, Any]:
    ended = [outcomes[node] for node in graph.nodes if node in outcomes]
    measured = [outcome.metrics for outcome in ended if outcome.metrics]
    counts = {
        "total": len(graph.nodes),
        "completed": sum(outcome.status == "completed" for outcome in ended),
        "failed": sum(outcome.status == "failed" for outcome in ended),
        "skipped": len(graph.nodes) - len(ended),
    }
    # In the order of the graph: sums of floats depend on it.
    sums = {
        name: sum(value for metrics in measured if (value := getattr(metrics, name)) is not None)
        for name in ("queue_ms", "start_ms", "run_ms", "cpu_ms")
    }
    largest = max((metrics.max_rss_bytes for metrics in measured if metrics.max_rss_bytes is not None), default=None)
    return {"nodes": counts, **sums, "max_rss_bytes": largest}
