"""Declaring components changes nothing about the functions, and says everything about them."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from contextlib import nullcontext
from typing import Any

import pytest
from pydantic import ValidationError

import flow_sdk
from flow_platform.engine.publish_request import LimitsRequest
from flow_sdk import agent, code_block, transform, workflow
from flow_sdk.declare import MAX_MEMORY_MB, MIN_MEMORY_MB, Declaration
from flow_sdk.harness import channel
from flow_sdk.wire.status import Kind

EXAMPLE = {"input": {"user": {"name": "Ada"}}, "output": {"user_name": "Ada"}}


@code_block(
    slug="slug",
    name="Slugs",
    tags=["text"],
    dependencies=["python-slugify>=8"],
    timeout_seconds=60,
    memory_mb=256,
    retry={"max_attempts": 3},
    network=["api.example.com"],
    secrets=["KEY"],
)
def make_slug(title: str, lower: bool = True) -> str:
    """Makes a slug.

    Of any title.
    """
    return title.lower() if lower else title


@transform(examples=[EXAMPLE], requires_context=True)
def flatten(data: dict[str, Any]) -> dict[str, Any]:
    return data


@workflow
async def _index_All(titles: list[str]) -> int:
    return len(titles)


def test_a_function_stays_an_ordinary_function() -> None:
    assert make_slug("AB") == "ab"
    assert make_slug("AB", lower=False) == "AB"
    assert inspect.isfunction(make_slug)
    assert str(inspect.signature(make_slug)) == "(title: 'str', lower: 'bool' = True) -> 'str'"
    assert inspect.iscoroutinefunction(_index_All)


async def test_an_async_function_stays_one() -> None:
    assert await _index_All(["a"]) == 1


def test_declaration_of_a_code_block() -> None:
    assert make_slug.declaration == Declaration(
        kind=Kind.CODE_BLOCK,
        slug="slug",
        entry_point="make_slug",
        name="Slugs",
        description="Makes a slug.\n\nOf any title.",
        tags=("text",),
        dependencies=("python-slugify>=8",),
        timeout_seconds=60,
        memory_mb=256,
        retry={"max_attempts": 3},
        network=("api.example.com",),
        secrets=("KEY",),
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_slug.declaration.slug = "x"  # pyright: ignore[reportAttributeAccessIssue]


def test_declaration_of_a_transform() -> None:
    declaration = flatten.declaration
    assert (declaration.kind, declaration.slug, declaration.name) == (Kind.TRANSFORM, "flatten", "flatten")
    assert (declaration.examples, declaration.requires_context) == ((EXAMPLE,), True)


def test_the_slug_comes_from_the_name() -> None:
    assert (_index_All.declaration.slug, _index_All.declaration.entry_point) == ("index-all", "_index_All")


def test_without_parentheses_and_with_empty_ones() -> None:
    def block() -> None: ...

    assert code_block(block).declaration == code_block()(block).declaration


def test_the_body_that_publishes() -> None:
    assert make_slug.declaration.publish_body("source") == {
        "slug": "slug",
        "code": "source",
        "entry_point": "make_slug",
        "name": "Slugs",
        "description": "Makes a slug.\n\nOf any title.",
        "tags": ["text"],
        "dependencies": ["python-slugify>=8"],
        "timeout_seconds": 60,
        "retry": {"max_attempts": 3},
        "limits": {"memory_bytes": 256 << 20},
        "network": ["api.example.com"],
        "secrets": ["KEY"],
        "smoke_input": None,
    }
    assert _index_All.declaration.publish_body("s") == {
        "slug": "index-all",
        "code": "s",
        "entry_point": "_index_All",
        "name": "index-all",
        "smoke_input": None,
    }


@pytest.mark.parametrize(
    ("decorator", "options", "message"),
    [
        (code_block, {"slug": "Not A Slug"}, "slug 'Not A Slug' is not valid: expected 1 to 63"),
        (code_block, {"slug": "-a"}, "slug '-a' is not valid"),
        (code_block, {"slug": "a" * 64}, "is not valid"),
        (code_block, {"memory_mb": 0}, "memory_mb 0 is not valid: expected 16 to 65536 MiB"),
        (code_block, {"memory_mb": 4}, "memory_mb 4 is not valid: expected 16 to 65536 MiB"),
        (code_block, {"timeout_seconds": -1}, "timeout_seconds -1 is not valid: expected a positive"),
        (transform, {"timeout_seconds": 301}, "timeout_seconds 301 is not valid: expected more than 0 and at most 300"),
        (code_block, {"dependencies": "requests"}, "dependencies 'requests' is not valid: expected a list"),
        (code_block, {"retry": {"attempts": 3}}, "retry has no option 'attempts': expected one of max_attempts"),
        (code_block, {"retry": {"max_attempts": 0}}, "retry max_attempts 0 is not valid"),
        (code_block, {"examples": []}, "code_block has no option 'examples': expected one of dependencies"),
        (workflow, {"timeout": 3}, "workflow has no option 'timeout'"),
        (transform, {"examples": [{"input": 1}]}, r"example {'input': 1} is not valid: expected the keys"),
    ],
)
def test_options_without_meaning(decorator: Any, options: dict[str, Any], message: str) -> None:
    def function() -> None: ...

    with pytest.raises(ValueError, match=message):
        decorator(**options)(function)


def test_a_lambda_cannot_be_found_again() -> None:
    with pytest.raises(ValueError, match="cannot be a component: expected a function with a name"):
        code_block(lambda: None)


def test_an_agent_is_a_record() -> None:
    other = agent("helper", model="openai/gpt-4o-mini", prompt="Help.")
    triage = agent(
        "triage", model="openai/gpt-4o-mini", prompt="Sort.", tools=[make_slug, other], output=dict, tags=["t"]
    )
    assert (triage.kind, triage.slug, triage.name, triage.output) == (Kind.AGENT, "triage", "triage", dict)
    assert [tool.ref for tool in triage.tools] == ["code_block/slug", "agent/helper"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        triage.slug = "x"  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match="slug 'Bad Slug' is not valid"):
        agent("Bad Slug", model="m", prompt="p")
    with pytest.raises(ValueError, match="timeout_seconds 0 is not valid"):
        agent("a", model="m", prompt="p", timeout_seconds=0)


def test_bounds_of_memory_are_those_of_publishing() -> None:
    for megabytes, is_valid in ((MIN_MEMORY_MB, True), (MIN_MEMORY_MB - 1, False), (MAX_MEMORY_MB, True)):
        with nullcontext() if is_valid else pytest.raises(ValidationError):
            LimitsRequest(memory_bytes=megabytes << 20)
    with pytest.raises(ValidationError):
        LimitsRequest(memory_bytes=(MAX_MEMORY_MB + 1) << 20)


def test_events_are_emitted_from_the_front_door() -> None:
    assert flow_sdk.emit_event is channel.emit_event
    modules = "import sys, flow_sdk; print(sorted({'flow_sdk.harness.channel', 'httpx', 'socket'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", modules], capture_output=True, text=True, check=True)
    assert loaded.stdout == "[]\n"
