"""The workspace as an MCP server, asked by the official client over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest
import pytest_asyncio
import uvicorn
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from flow_platform.domain.principal import Role
from flow_platform.engine.mcp_tools import MAX_NAME, tool_name
from flow_sdk.wire.execution import ErrorDocument
from tests.contract.api.hands import Platform, Tenant, refused
from tests.contract.api.test_api_service_calls import given
from tests.contract.api.test_api_services import endpoint, published
from tests.support.eventually import eventually

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

MODES = ["auto", "legacy"]
"""Of today's protocol, without sessions, and of those before it."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(platform: Platform) -> AsyncIterator[str]:
    config = uvicorn.Config(platform.app, port=0, log_config=None, lifespan="off", ws="none", interface="asgi3")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    await eventually(lambda: _started(server), bool)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = server.force_exit = True
    await serving


async def _started(server: uvicorn.Server) -> bool:
    return server.started


@contextlib.asynccontextmanager
async def connected(
    url: str, tenant: Tenant, mode: str = "auto", role: Role = Role.RUNNER, query: str = "", **options: Any
) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {tenant.token(role)}"}
    async with httpx2.AsyncClient(headers=headers, timeout=30) as http:
        transport = streamable_http_client(f"{url}{tenant.path}/mcp{query}", http_client=http)
        async with Client(transport, mode=mode, **options) as client:
            yield client


async def started(tenant: Tenant) -> str:
    """The only execution of the workspace, once there is one."""

    async def look() -> list[dict[str, Any]]:
        async with tenant.client() as client:
            return (await client.get("/executions")).json()["items"]

    [one] = await eventually(look, bool)
    assert one["lifecycle_event"] == "mcp_session"
    return one["execution_id"]


@pytest.mark.parametrize("mode", MODES)
async def test_components_and_services_of_the_ring_are_tools(tenant: Tenant, url: str, mode: str) -> None:
    hidden = endpoint("b", path="/b", expose_as_agent_tool=False)
    service = await published(tenant, endpoint("find", method="GET"), hidden)
    await tenant.publish("workflows", "nightly", name="Nightly", description="Does it all.")

    async with connected(url, tenant, mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    async with connected(url, tenant, mode, query="?ring=production") as client:
        elsewhere = (await client.list_tools()).tools

    names = {"code_block__echo", "workflow__nightly", f"service__{service['slug']}__find"}
    assert set(tools) == names
    assert tools["workflow__nightly"].title == "Nightly"
    assert tools["workflow__nightly"].description == "Does it all."
    found = tools[f"service__{service['slug']}__find"]
    assert found.input_schema["required"] == ["order_id", "note"]
    assert found.annotations is not None
    assert found.annotations.read_only_hint
    assert elsewhere == []


@pytest.mark.parametrize("mode", MODES)
async def test_a_call_is_an_execution_and_its_end_the_result(tenant: Tenant, url: str, mode: str) -> None:
    await tenant.publish()

    async with connected(url, tenant, mode) as client:
        calling = asyncio.ensure_future(client.call_tool("code_block__echo", {"a": 1}))
        assignment = await tenant.platform.claim(await started(tenant))
        await tenant.platform.finish(assignment, {"sum": 3})
        result = await calling

    assert given(assignment) == {"a": 1}
    assert (result.is_error, result.structured_content) == (False, {"sum": 3})
    assert result.content[0].text == '{"sum": 3}'
    assert (result.meta or {})["flow/execution_id"] == assignment.execution_id


async def test_what_fails_is_told_to_the_model(tenant: Tenant, url: str) -> None:
    service = await published(tenant)
    name = f"service__{service['slug']}__note-order"
    broken = ErrorDocument(code="component_error", message="no such order", retryable=False)

    async with connected(url, tenant) as client:
        missing = await client.call_tool(name, {"order_id": 1})
        calling = asyncio.ensure_future(client.call_tool(name, {"order_id": 1, "note": "fine"}))
        assignment = await tenant.platform.claim(await started(tenant))
        await tenant.platform.finish(assignment, None, broken.model_dump())
        failed = await calling
        with pytest.raises(MCPError, match="is not in ring"):
            await client.call_tool("code_block__unknown", {})

    assert assignment.config["service"]["endpoint"] == "note-order"
    assert missing.is_error
    assert "note: is required" in missing.content[0].text
    assert failed.is_error
    assert "component_error: no such order" in failed.content[0].text


@pytest.mark.parametrize("mode", MODES)
async def test_progress_and_logs_are_told_on_the_way(tenant: Tenant, url: str, mode: str) -> None:
    await tenant.publish()
    progress: list[Any] = []
    logs: list[Any] = []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        progress.append((done, total, message))

    async def on_log(params: Any) -> None:
        logs.append((params.logger, params.data))

    meta = {"io.modelcontextprotocol/logLevel": "info"}
    async with connected(url, tenant, mode, logging_callback=on_log) as client:
        calling = asyncio.ensure_future(
            client.call_tool("code_block__echo", {}, progress_callback=on_progress, meta=meta)
        )
        assignment = await tenant.platform.claim(await started(tenant))
        await tenant.platform.emit(assignment, 1, "progress", {"progress": 1, "total": 4, "message": "a quarter"})
        await tenant.platform.emit(assignment, 2, "log", {"stream": "stdout", "line": "hello"})
        await eventually(lambda: _copy(logs), bool)
        await tenant.platform.finish(assignment, 1)
        await calling

    assert progress == [(1.0, 4.0, "a quarter")]
    assert logs == [("log", {"stream": "stdout", "line": "hello"})]


async def _copy(values: list[Any]) -> list[Any]:
    return list(values)


@pytest.mark.parametrize("mode", MODES)
async def test_a_call_that_is_cancelled_cancels_its_execution(tenant: Tenant, url: str, mode: str) -> None:
    await tenant.publish()

    async with connected(url, tenant, mode) as client:
        calling = asyncio.ensure_future(client.call_tool("code_block__echo", {}))
        execution_id = await started(tenant)
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)

        async def status() -> str:
            async with tenant.client() as http:
                return (await http.get(f"/executions/{execution_id}")).json()["status"]

        assert await eventually(status, lambda value: value != "queued") == "cancelled"


async def test_skills_are_resources(tenant: Tenant, url: str) -> None:
    service = await published(tenant)

    async with connected(url, tenant) as client:
        [resource] = (await client.list_resources()).resources
        [content] = (await client.read_resource(resource.uri)).contents
        with pytest.raises(MCPError, match="not found"):
            await client.read_resource("skill://nothing/here/SKILL.md")

    assert resource.uri == f"skill://{service['slug']}/{service['slug']}-note-order/SKILL.md"
    assert content.text.startswith(f"---\nname: {service['slug']}-note-order\n")


async def test_who_may_not_run_is_not_served(tenant: Tenant, other: Tenant, url: str) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    workflow = await tenant.running()

    for token, status, code in (
        (None, 401, "unauthenticated"),
        (tenant.token(Role.VIEWER), 403, "forbidden"),
        (other.token(), 404, "not_found"),
        (workflow.token, 403, "forbidden"),
    ):
        async with tenant.platform.client(token) as client:
            refused(await client.post(f"{tenant.path}/mcp", json=body), status, code)
    async with connected(url, tenant, query="?ring=unknown") as client:
        with pytest.raises(MCPError, match="ring 'unknown' not found"):
            await client.list_tools()


async def test_a_session_is_only_for_whom_it_was_opened(
    new_tenant: Callable[[], Any], tenant: Tenant, url: str
) -> None:
    accept = {"Accept": "application/json, text/event-stream"}
    opening = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}},
    }
    asking = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
    path = f"{url}{tenant.path}/mcp"

    async with httpx2.AsyncClient(headers=accept) as http:
        opened = await http.post(path, json=opening, headers=_bearer(tenant, Role.RUNNER))
        session = {"Mcp-Session-Id": opened.headers["mcp-session-id"]}
        other = await http.post(path, json=asking, headers=session | _bearer(tenant, Role.ADMIN))
        same = await http.post(path, json=asking, headers=session | _bearer(tenant, Role.RUNNER))
        ended = await http.delete(path, headers=session | _bearer(tenant, Role.RUNNER))

    assert (opened.status_code, other.status_code, same.status_code, ended.status_code) == (200, 404, 200, 200)
    assert opened.headers["x-request-id"]
    assert opened.headers["x-content-type-options"] == "nosniff"


def _bearer(tenant: Tenant, role: Role) -> dict[str, str]:
    return {"Authorization": f"Bearer {tenant.token(role)}"}


async def test_names_of_tools_are_short_and_apart() -> None:
    one, two = (tool_name("service", "s" * 63, "e" * 62 + end) for end in "ab")

    assert tool_name("transform", "a") == "transform__a"
    assert len(one) == len(two) == MAX_NAME
    assert one != two


async def test_a_server_starts_without_what_speaks_the_protocol() -> None:
    program = (
        "import sys, flow_platform.api.app, flow_platform.engine.service\n"
        "print([name for name in ('mcp', 'mcp_types', 'sse_starlette', 'jsonschema_path') if name in sys.modules])\n"
    )

    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert (done.stdout, done.stderr) == ("[]\n", "")
