"""`fn.call(...)`: a declared function run as a deployed component, from inside a container."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from flow_sdk import PlatformExecutionError, calling, code_block, transform, workflow
from tests.contract.client.recording_server import Recorded, RecordingServer, Reply


@code_block(timeout_seconds=20)
def make_slug(title: str, lower: bool = True, **extra: Any) -> str:
    return title.lower() if lower else title


@transform
def flatten(data: dict[str, Any]) -> dict[str, Any]:
    return {"flat": data}


@transform(requires_context=True)
def with_context(data: int, context: dict[str, Any]) -> int:
    return data


@workflow
async def index(titles: list[str]) -> dict[str, str]:
    return {title: await make_slug.call(title) for title in titles}


@code_block
def many(*values: int) -> int:
    return sum(values)


class Platform:
    """Answers each call with one document."""

    def __init__(self, server: RecordingServer, **document: Any) -> None:
        self.document = {"execution_id": "e1", "status": "completed", "output": "out"} | document
        server.handler = self.handle

    async def handle(self, request: Recorded) -> Reply:
        if request.path.endswith("/executions"):
            return Reply(202, {"execution_id": "e1", "status": "queued"})
        return Reply(200, self.document)


@pytest.fixture
def container(server: RecordingServer, monkeypatch: pytest.MonkeyPatch) -> RecordingServer:
    variables = {
        "PLATFORM_API_URL": server.url,
        "AUTH_TOKEN": "t",
        "ORG_ID": "o1",
        "WORKSPACE_ID": "w1",
        "RING_ID": "ring-1",
        "DEPLOYMENT_ID": "dep-1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return server


async def test_without_a_platform_the_function_runs_here() -> None:
    assert await make_slug.call("ABC", lower=False) == "ABC"
    assert await index.call(titles=["A", "B"]) == {"A": "a", "B": "b"}
    assert await flatten.call({"a": 1}) == {"flat": {"a": 1}}
    assert await many.call(1, 2) == 3


async def test_code_block(container: RecordingServer) -> None:
    Platform(container)
    assert await make_slug.call("ABC", lower=False, more=1) == "out"
    submit = container.requests[0]
    assert submit.path == "/api/v1/orgs/o1/workspaces/w1/code-blocks/make-slug/executions"
    assert json.loads(submit.body) == {
        "input_parameters": {"title": "ABC", "lower": False, "more": 1},
        "config": {},
        "lifecycle_event": "workflow",
        "ring_id": "ring-1",
        "timeout_seconds": 20,
        "caller_deployment_id": "dep-1",
    }


async def test_workflow(container: RecordingServer) -> None:
    Platform(container)
    assert await index.call(["A"]) == "out"
    submit = container.requests[0]
    assert submit.path == "/api/v1/orgs/o1/workspaces/w1/workflows/index/executions"
    body = json.loads(submit.body)
    assert (body["input_data"], body["ring_id"], body["timeout_seconds"]) == ({"titles": ["A"]}, "ring-1", 300)


async def test_transform(container: RecordingServer) -> None:
    Platform(container, output={"x": 1})
    assert await flatten.call({"a": 1}) == {"x": 1}
    assert await with_context.call(5, {"k": 1}) == {"x": 1}
    first, second = container.requests
    assert first.path == "/api/v1/component-execution/transforms/flatten/execute"
    assert json.loads(first.body) == {"input_data": {"a": 1}, "caller_deployment_id": "dep-1"}
    assert json.loads(second.body) == {"input_data": 5, "caller_deployment_id": "dep-1", "context": {"k": 1}}


@pytest.mark.parametrize("status", ["failed", "timeout", "dead_letter", "cancelled"])
async def test_what_did_not_complete_raises_with_the_document(status: str, container: RecordingServer) -> None:
    platform = Platform(container, status=status, output=None, error={"code": "component_error", "message": "boom"})
    with pytest.raises(PlatformExecutionError, match=f"code_block 'make-slug' ended '{status}': boom") as caught:
        await make_slug.call("A")
    assert caught.value.execution == platform.document


async def test_arguments_that_do_not_fit(container: RecordingServer) -> None:
    with pytest.raises(TypeError, match="missing a required argument: 'title'"):
        await make_slug.call()  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match=r"many\(\) takes \(1, 2\) by position"):
        await many.call(1, 2)
    assert not container.requests


async def test_one_client_for_all_calls_of_a_loop(container: RecordingServer) -> None:
    Platform(container)
    await make_slug.call("A")
    await asyncio.gather(*(flatten.call({"n": number}) for number in range(5)))
    assert len(calling._SHARED) == 1
    assert container.connections <= 5


def test_the_shared_client_ends_with_its_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def program() -> None:
        server = RecordingServer()
        Platform(server)
        await server.start()
        monkeypatch.setenv("PLATFORM_API_URL", server.url)
        monkeypatch.setenv("AUTH_TOKEN", "t")
        await flatten.call({})
        assert len(calling._SHARED) == 1
        await server.stop()

    asyncio.run(program())
    assert not calling._SHARED
    asyncio.run(program())
    assert not calling._SHARED
