"""Graphs among the files that `flow publish` finds."""

import json
from pathlib import Path

import pytest

from flow_platform.cli.declarations import find_components
from flow_platform.domain.errors import FlowError, InvalidInput


def graph(*workflows: str, **fields: object) -> str:
    nodes = [{"id": f"n{number}", "component_ref": ref} for number, ref in enumerate(workflows)]
    return json.dumps({"nodes": nodes, **fields})


def test_graphs_come_after_code_and_after_the_graphs_that_they_refer_to(tmp_path: Path):
    (tmp_path / "z.py").write_text("from flow_sdk import workflow\n@workflow\ndef plain(): ...\n")
    (tmp_path / "a.workflow.json").write_text(graph("workflow/b", "code_block/x"))
    (tmp_path / "b.workflow.json").write_text(graph("workflow/deep@2"))
    (tmp_path / "c.workflow.json").write_text(graph("workflow/plain", slug="deep"))
    (tmp_path / "other.json").write_text("not ours")
    labels = [component.label for component in find_components(tmp_path)]
    assert labels == ["workflows/plain", "workflows/deep", "workflows/b", "workflows/a"]


def test_a_circle_is_left_to_the_platform(tmp_path: Path):
    (tmp_path / "a.workflow.json").write_text(graph("workflow/b"))
    (tmp_path / "b.workflow.json").write_text(graph("workflow/a"))
    assert [component.label for component in find_components(tmp_path)] == ["workflows/a", "workflows/b"]


def test_the_body_is_the_file_and_the_slug_its_name(tmp_path: Path):
    (tmp_path / "my-graph.workflow.json").write_text(graph("code_block/x", type="single"))
    [component] = find_components(tmp_path / "my-graph.workflow.json")
    assert component.body == {
        "slug": "my-graph",
        "type": "single",
        "nodes": [{"id": "n0", "component_ref": "code_block/x"}],
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{\n  nodes: []}", "wrong.workflow.json:2: is not JSON"),
        ("[]", "expected a JSON object"),
        ('{"slug": 7}', "slug is 7"),
        ('{"nodes": [{"component_ref": 1}, 2]}', None),
    ],
)
def test_what_is_no_graph_is_told_with_its_place(tmp_path: Path, text: str, says: str | None):
    (tmp_path / "wrong.workflow.json").write_text(text)
    if says is None:
        assert len(find_components(tmp_path)) == 1  # Its form is the platform's to check.
        return
    with pytest.raises(InvalidInput, match="wrong") as refused:
        find_components(tmp_path)
    assert says in refused.value.message


def test_one_slug_may_be_declared_once(tmp_path: Path):
    (tmp_path / "z.py").write_text("from flow_sdk import workflow\n@workflow\ndef plain(): ...\n")
    (tmp_path / "plain.workflow.json").write_text(graph("code_block/x"))
    with pytest.raises(FlowError, match="is declared at"):
        find_components(tmp_path)
