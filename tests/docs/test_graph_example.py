"""The example of a graph workflow: the commands of its README, in containers; the graphs that the document shows."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.documents import DOCS, ROOT, blocks
from tests.support.flow_program import Platform, running

README = ROOT / "examples" / "graph" / "README.md"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running(tmp_path_factory.mktemp("graphs")) as started:
        yield started


def test_the_commands_of_the_example(platform: Platform) -> None:
    [(_, script)] = blocks("sh", README)
    said: list[str] = []
    for line in script.splitlines()[1:]:
        words = shlex.split(line.removeprefix("flow "))
        done = platform.flow(*(ROOT / word if word.startswith("examples/") else word for word in words))
        assert done.returncode == 0, (line, done.stderr)
        said.append(done.stdout)
    assert said[0].splitlines()[-1] == "workflows/order: created v1"
    assert [json.loads(output) for output in said[1:]] == [
        {"shipped": "2 pieces for Ada, approved by nobody", "released": None},
        {"shipped": "2 pieces for Bob, approved by the credit desk", "released": None},
        {"shipped": None, "released": "given back: Mallory is not trusted with 1800.0"},
    ]
    # Again: nothing has changed. And a problem is told with its place.
    assert "workflows/order: unchanged v1" in platform.flow("publish", ROOT / "examples" / "graph").stdout


def test_the_graphs_of_the_document_can_be_published(platform: Platform, tmp_path: Path) -> None:
    [(_, code)] = blocks("python", DOCS / "graphs.md")
    (tmp_path / "steps.py").write_text(code)
    graphs = [json.loads(text) for _, text in blocks("json", DOCS / "graphs.md")]
    for number, graph in enumerate(graph for graph in graphs if "nodes" in graph):
        (tmp_path / f"graph-{number}.workflow.json").write_text(json.dumps({**graph, "slug": f"graph-{number}"}))
    published = platform.flow("publish", tmp_path)
    assert published.returncode == 0, published.stderr
    assert published.stdout.count("workflows/graph-") > 2


def test_a_graph_that_is_refused_is_told_with_its_place(platform: Platform, tmp_path: Path) -> None:
    graph = {"nodes": [{"id": "a", "component_ref": "code_block/absent"}], "edges": [{"source": "a", "target": "b"}]}
    (tmp_path / "wrong.workflow.json").write_text(json.dumps(graph))
    refused = platform.flow("publish", tmp_path)
    assert refused.returncode != 0
    assert "wrong.workflow.json: workflows/wrong" in refused.stderr
    assert "edge 'a' -> 'b'" in refused.stderr
