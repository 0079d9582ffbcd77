"""Runs of graphs, step by step: what starts, with which input, what is skipped, and what comes out."""

from __future__ import annotations

from typing import Any

from flow_platform.domain.graph import Graph, load_graph
from flow_platform.domain.graph_run import Advance, RunState, Start, advance, completed, failed
from flow_sdk.wire.execution import ErrorDocument, MetricsDocument

_ERROR = ErrorDocument(code="component_error", type="ValueError", message="no luck")


def _node(node_id: str, **fields: Any) -> dict[str, Any]:
    return {"id": node_id, "component_ref": "code_block/step", **fields}


def _load(nodes: list[dict[str, Any]], edges: str = "", **fields: Any) -> Graph:
    """Edges such as `a>b, b>c if outputs.b.ok`."""
    parsed: list[dict[str, Any]] = []
    for text in filter(None, edges.split(", ")):
        ends, _, condition = text.partition(" if ")
        source, target = ends.split(">")
        parsed.append({"source": source, "target": target} | ({"condition": condition} if condition else {}))
    return load_graph({"nodes": nodes, "edges": parsed, **fields})


class _Run:
    """Drives a run by hand."""

    def __init__(self, graph: Graph, inputs: Any) -> None:
        self.graph = graph
        self.state = RunState(inputs)
        self.last: Advance
        self._step()

    def end(self, node: str, output: Any = None, error: ErrorDocument | None = None, **measured: Any) -> None:
        metrics = MetricsDocument(**measured) if measured else None
        outcome = failed(error, metrics) if error else completed(output, metrics)
        self.state = self.state.with_outcome(node, outcome)
        self._step()

    def started(self) -> list[str]:
        return [start.node for start in self.last.start]

    def _step(self) -> None:
        self.last = advance(self.graph, self.state)
        self.state = self.last.state.with_started(*self.started())


def test_a_sequence_hands_outputs_on():
    run = _Run(_load([_node("a"), _node("b"), _node("c")], type="sequential"), {"x": 1})
    assert run.last.start == (Start("a", {"x": 1}),)
    run.end("a", {"y": 2})
    assert run.last.start == (Start("b", {"y": 2}),)
    assert run.last.result is None
    run.end("b", {"z": 3})
    run.end("c", {"last": 4})
    assert run.last.result is not None
    assert run.last.result.is_completed
    assert run.last.result.outputs == {"c": {"last": 4}}
    assert run.last.result.errors == {}


def test_asking_again_starts_nothing_twice():
    graph = _load([_node("a"), _node("b")], type="parallel")
    first = advance(graph, RunState({}))
    assert [start.node for start in first.start] == ["a", "b"]
    state = first.state.with_started("a", "b")
    assert advance(graph, state).start == ()
    assert advance(graph, state).result is None


def test_a_late_second_outcome_changes_nothing():
    state = RunState({}).with_outcome("a", completed(1))
    assert state.with_outcome("a", failed(_ERROR)) is state


def test_branches_by_condition_and_a_join_of_any():
    graph = _load(
        [
            _node("check"),
            _node("big", input={"v": "$.inputs.v"}),
            _node("small", input={"v": "$.inputs.v"}),
            _node("end", join="any", input={"big": "$.nodes.big.output", "small": "$.nodes.small.output"}),
        ],
        "check>big if outputs.check.size > 10, check>small if outputs.check.size <= 10, big>end, small>end",
    )
    run = _Run(graph, {"v": 7})
    run.end("check", {"size": 3})
    assert run.last.start == (Start("small", {"v": 7}),)
    assert run.last.skipped == ("big",)
    run.end("small", "s")
    assert run.last.start == (Start("end", {"big": None, "small": "s"}),)
    run.end("end", "done")
    assert run.last.result is not None
    assert run.last.result.outputs == {"end": "done"}
    assert run.last.result.metrics["nodes"] == {"total": 4, "completed": 3, "failed": 0, "skipped": 1}


def test_any_starts_with_the_first_edge_when_it_reads_nothing_else():
    graph = _load([_node("a"), _node("b"), _node("c", join="any", input={"n": 1})], "a>c, b>c")
    run = _Run(graph, {})
    run.end("b")
    assert run.started() == ["c"]
    run.end("c", "c")
    assert run.last.result is None, "a still runs"
    run.end("a", error=_ERROR)
    assert run.last.result is not None
    assert not run.last.result.is_completed


def test_any_waits_for_what_it_reads():
    graph = _load([_node("a"), _node("b"), _node("c", join="any", input={"n": "$.nodes.a.output"})], "a>c, b>c")
    run = _Run(graph, {})
    run.end("b")
    assert run.started() == []
    run.end("a", 5)
    assert run.last.start == (Start("c", {"n": 5}),)


def test_a_failure_skips_what_follows_and_nothing_else():
    graph = _load([_node("a"), _node("b"), _node("c"), _node("d", input={}), _node("e")], "a>c, c>d, b>d, b>e")
    run = _Run(graph, {})
    run.end("a", error=_ERROR)
    assert run.last.skipped == ("c", "d")
    run.end("b", {"k": 1})
    assert run.last.start == (Start("e", {"k": 1}),)
    run.end("e", 2)
    result = run.last.result
    assert result is not None
    assert not result.is_completed
    assert result.outputs == {"e": 2}
    assert result.errors == {"a": _ERROR}
    assert result.failure is not None
    assert result.failure.code == "node_failed"
    assert result.failure.message == "node 'a' failed: no luck"


def test_a_failure_is_handled_by_an_edge_that_reads_errors():
    graph = _load(
        [
            _node("try"),
            _node("next", input={}),
            _node("mend", input={"why": "$.nodes.try.error.type", "got": "$.nodes.try.output"}),
        ],
        "try>next, try>mend if has(errors.try) && errors.try.code == 'component_error'",
    )
    run = _Run(graph, {})
    run.end("try", error=_ERROR)
    assert run.last.start == (Start("mend", {"why": "ValueError", "got": None}),)
    run.end("mend", "mended")
    result = run.last.result
    assert result is not None
    assert result.is_completed
    assert result.failure is None
    assert result.errors == {"try": _ERROR}
    assert result.outputs == {"mend": "mended"}

    quiet = _Run(graph, {})
    quiet.end("try", 1)
    assert quiet.started() == ["next"]
    assert quiet.last.skipped == ("mend",)


def test_a_condition_that_cannot_be_decided_is_an_error_of_its_edge():
    graph = _load([_node("a"), _node("b")], "a>b if outputs.a.ok")
    run = _Run(graph, {})
    run.end("a", {"okay": True})
    result = run.last.result
    assert result is not None
    assert not result.is_completed
    assert list(result.errors) == ["edge 'a' -> 'b'"]
    assert result.errors["edge 'a' -> 'b'"].code == "condition_failed"
    assert result.failure is not None
    assert result.failure.message.startswith("edge 'a' -> 'b' failed: condition 'outputs.a.ok'")
    assert result.metrics["nodes"]["skipped"] == 1


def test_an_input_that_cannot_be_made_fails_its_node():
    graph = _load([_node("a"), _node("b", input={"x": "$.nodes.a.output.gone"}), _node("c")], "a>b, b>c")
    run = _Run(graph, {})
    run.end("a", {"here": 1})
    result = run.last.result
    assert result is not None
    assert run.last.skipped == ("c",)
    assert result.errors["b"].code == "input_mapping_failed"
    assert "'$.nodes.a.output.gone'" in result.errors["b"].message
    assert not result.errors["b"].retryable


def test_outputs_as_the_graph_says():
    nodes = [_node("a"), _node("b")]
    graph = _load(nodes, "a>b", outputs={"first": "$.nodes.a.output.v", "input": "$.inputs.n", "fixed": True})
    run = _Run(graph, {"n": 1})
    run.end("a", {"v": 5})
    run.end("b", 0)
    assert run.last.result is not None
    assert run.last.result.outputs == {"first": 5, "input": 1, "fixed": True}

    run = _Run(graph, {"n": 1})
    run.end("a", {"w": 5})
    run.end("b", 0)
    assert run.last.result is not None
    assert not run.last.result.is_completed
    assert run.last.result.errors["outputs"].code == "input_mapping_failed"


def test_metrics_add_up():
    run = _Run(_load([_node("a"), _node("b"), _node("c")], type="parallel"), {})
    run.end("b", run_ms=2.0, cpu_ms=1.0, max_rss_bytes=10)
    run.end("a", run_ms=3.0, max_rss_bytes=30)
    run.end("c", error=_ERROR)
    assert run.last.result is not None
    assert run.last.result.metrics == {
        "nodes": {"total": 3, "completed": 2, "failed": 1, "skipped": 0},
        "queue_ms": 0,
        "start_ms": 0,
        "run_ms": 5.0,
        "cpu_ms": 1.0,
        "max_rss_bytes": 30,
    }


def test_a_run_is_taken_up_from_outcomes_alone():
    graph = _load([_node("a"), _node("b"), _node("c")], "a>b if outputs.a.ok, b>c")
    state = RunState({}, {"a": completed({"ok": True})})
    assert [start.node for start in advance(graph, state).start] == ["b"]
