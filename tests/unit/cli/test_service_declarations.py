"""Services declared in Python files: read, never run; and the same records when the file is imported."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from flow_platform.cli.declarations import find_components
from flow_platform.cli.service_declarations import ServiceFound
from flow_platform.domain.errors import InvalidInput
from flow_sdk import agent, endpoint, service

HEAD = "from flow_sdk import agent, code_block, endpoint, service\n@code_block\ndef note_order(order_id: int): ...\n"
SHOP = """
shop = service(
    "shop",
    name="Shop",
    endpoints=[
        endpoint(note_order, "POST", "/orders/{order_id}/notes", async_eligible=True, when_to_use=["Say so"]),
        endpoint(clerk, method="post", path="/ask", name="ask", auth="public", expose_as_agent_tool=False),
        endpoint("workflow/census", "GET", "/census", response_schema={}, timeout_seconds=5),
    ],
)
clerk = agent("clerk", model="test/echo", prompt="p")
boss = agent("boss", model="test/echo", prompt="p", tools=[other, "service:shop/ask"])
other = service("other", endpoints=[endpoint("code_block/x", "GET", "/x")], ring="staging")
last = service("last", endpoints=[endpoint(boss, "POST", "/boss")])
"""


def test_a_service_comes_after_what_answers_and_before_the_agents_that_take_it(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(HEAD + SHOP)

    found = find_components(tmp_path)
    bodies = {one.slug: one.body for one in found if isinstance(one, ServiceFound)}

    labels = [one.label for one in found]
    assert labels[0] == "code-blocks/note-order"
    assert labels.index("agents/clerk") < labels.index("services/shop") < labels.index("agents/boss")
    assert labels.index("services/other") < labels.index("agents/boss") < labels.index("services/last")
    assert bodies["shop"] == {
        "slug": "shop",
        "name": "Shop",
        "description": "",
        "endpoints": [
            {
                "name": "note-order",
                "method": "POST",
                "path": "/orders/{order_id}/notes",
                "component": {"kind": "code_block", "slug": "note-order"},
                "async_eligible": True,
                "when_to_use": ["Say so"],
            },
            {
                "name": "ask",
                "method": "POST",
                "path": "/ask",
                "component": {"kind": "agent", "slug": "clerk"},
                "expose_as_agent_tool": False,
                "auth": "public",
            },
            {
                "name": "census",
                "method": "GET",
                "path": "/census",
                "component": {"kind": "workflow", "slug": "census"},
                "response_schema": {},
                "timeout_seconds": 5,
            },
        ],
    }
    assert bodies["other"]["ring"] == "staging"
    [boss] = [one.body for one in found if one.label == "agents/boss"]
    assert boss["tools"] == ["service:other", "service:shop/ask"]


def test_the_file_means_the_same_when_it_is_imported(tmp_path: Path) -> None:
    file = tmp_path / "shop.py"
    file.write_text(HEAD + "shop = service('shop', endpoints=[endpoint(note_order, 'POST', '/n', tags=['a'])])\n")
    spec = importlib.util.spec_from_file_location("shop", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    [found] = [one for one in find_components(file) if isinstance(one, ServiceFound)]

    assert module.shop == found.declaration
    assert agent("a", model="m", prompt="p", tools=[module.shop]).tools[0].ref == "service:shop"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s = service('s', endpoints=[endpoint(nobody, 'GET', '/x')])", r":4: 'nobody' is no component"),
        ("s = service('s', endpoints=[endpoint(note_order, 'GET', 'x')])", r":4: .*path 'x'"),
        ("s = service('s', endpoints=[endpoint(note_order, 'FETCH', '/x')])", r":4: .*method 'FETCH'"),
        ("s = service('s', endpoints=[endpoint(note_order, 'GET')])", r":4: .*'path'"),
        ("s = service('s', endpoints=[endpoint(note_order, 'GET', '/x', auth='no')])", r":4: .*auth 'no'"),
        ("s = service('s', endpoints=[endpoint(note_order, 'GET', '/x', chunk=1)])", r":4: .*no option 'chunk'"),
        ("s = service('s', endpoints=[endpoint(note_order, 'GET', str('/x'))])", r":4: option 'path' of endpoint"),
        ("s = service('s', endpoints=[note_order])", r":4: an endpoint is 'note_order'"),
        ("s = service('s', endpoints=some())", r":4: endpoints is 'some\(\)': expected a list"),
        ("s = service('s', endpoints=[])", r":4: .*no endpoints"),
        ("s = service('S', endpoints=[endpoint(note_order, 'GET', '/x')])", r":4: .*slug 'S'"),
        ("s = service('s', colour='red', endpoints=[endpoint(note_order, 'GET', '/x')])", r":4: .*'colour'"),
        ("def f():\n    s = service('s', endpoints=[])", r":5: a service is declared at the top level"),
    ],
)
def test_a_service_that_cannot_be_read_is_named_with_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "shop.py").write_text(HEAD + text + "\n")

    with pytest.raises(InvalidInput, match=message):
        find_components(tmp_path)


@pytest.mark.parametrize(
    ("endpoints", "message"),
    [
        ([("code_block/a", "GET", "/x", {}), ("code_block/a", "POST", "/x", {})], "the name 'a'"),
        ([("code_block/a", "GET", "/x", {}), ("code_block/b", "get", "/x", {})], "method and path 'GET /x'"),
    ],
)
def test_two_endpoints_are_told_apart(endpoints: list[tuple[Any, ...]], message: str) -> None:
    made = [endpoint(ref, method, path, **options) for ref, method, path, options in endpoints]
    with pytest.raises(ValueError, match=message):
        service("s", endpoints=made)
