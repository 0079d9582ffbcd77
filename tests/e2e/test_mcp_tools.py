"""Agents that call tools of real MCP servers: over the network, and as a program in the call's own container."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import uvicorn

from flow_sdk.wire.agent import PACKAGES
from flow_sdk.wire.status import Status
from tests.support.agent_platform import PRICES, AgentRing, calls, script
from tests.support.flow_program import Platform, eventually, flow, running
from tests.support.installed_packages import InstalledPackages
from tests.support.mcp_things import make

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

PROGRAM = Path(__file__).parents[1] / "support" / "mcp_things.py"
TOKEN = "t0p-secret-token"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a server on the loopback of this machine, which asks for a token."""
    app = make().streamable_http_app()

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        given = dict(scope.get("headers") or ()).get(b"authorization")
        if scope["type"] == "http" and given != f"Bearer {TOKEN}".encode():
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b"who are you?"})
            return
        await app(scope, receive, send)

    server = uvicorn.Server(uvicorn.Config(guarded, port=0, log_config=None, interface="asgi3"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    eventually(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/mcp"
    server.should_exit = server.force_exit = True
    thread.join()


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, address: str) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("mcp")
    models = folder / "models.toml"
    models.write_text(PRICES)
    with InstalledPackages(*PACKAGES, "mcp", "flow-sdk") as index:
        wanted = {**index.environment, "FLOW_MODELS_FILE": str(models), "FLOW_EGRESS_ALLOW": "127.0.0.1"}
        with running(folder, **wanted) as platform:
            assert platform.flow("secret", "set", "THINGS_TOKEN", stdin=TOKEN).returncode == 0
            yield platform


@pytest_asyncio.fixture
async def ring(platform: Platform) -> AsyncIterator[AgentRing]:
    async with AgentRing(platform) as client:
        yield client


@pytest.fixture(scope="module")
def things(platform: Platform, address: str) -> dict[str, Any]:
    """The server on the network, registered."""
    header = "Authorization: Bearer ${THINGS_TOKEN}"
    return platform.output_of("mcp", "add", "things", "--http", address, "--header", header, "--json")


def told(document: dict[str, Any]) -> dict[str, str]:
    """What the model was told by each tool."""
    parts = [part for message in document["messages"] for part in message["parts"]]
    return {part["tool_name"]: part["content"] for part in parts if part["part_kind"] == "tool-return"}


async def test_an_agent_calls_all_tools_of_a_server_each_in_a_container_of_its_own(
    ring: AgentRing, things: dict[str, Any]
) -> None:
    turns = [
        calls(("things__weather", {"city": "Bern"}), ("things__shout", {"text": "hi"}), ("things__whole", {})),
        calls(("things__files_read", {}), ("things__fails", {"reason": "no"}), ("things__weather", {"city": "B"})),
        {"text": "done"},
    ]
    agent = await ring.publish(**script(*turns), tools=["mcp:things/*"])
    frozen = (await ring.get(f"/agents/{agent['slug']}"))["newest"]["agent"]["tools"]

    document = await ring.ask(agent["slug"])

    assert things["error"] is None
    assert {tool["ref"] for tool in frozen} == {f"things/{tool['name']}" for tool in things["tools"]}
    assert document["output"] == "done", document["error"]
    answers = told(document)
    children = await ring.children(document["execution_id"])
    assert answers["things__shout"] == "HI"
    assert json.loads(answers["things__whole"]) == {"n": 3}
    assert "one pixel\n[image image/png, " in answers["things__files_read"]
    assert any(child["execution_id"] in answers["things__files_read"] for child in children)
    assert "mcp_tool_error" in answers["things__fails"]
    assert "'B' is too short" in answers["things__weather"]
    assert {child["component"]["slug"] for child in children} == {"mcp-things"}
    assert sorted(child["status"] for child in children) == [Status.COMPLETED] * 4 + [Status.FAILED]
    assert all(child["billing"]["parent_transaction_id"] == document["execution_id"] for child in children)
    assert all(child["billing"]["own_credits"] for child in children)
    first = children[0]["execution_id"]
    outputs = [(await ring.status(child["execution_id"]))["output"] for child in children]
    assert {"city": "Bern", "degrees": 21} in [output.get("structuredContent") for output in outputs if output]
    hosts = [data["host"] for kind, data in await ring.events(first) if kind == "network"]
    assert set(hosts) == {"127.0.0.1"}
    assert TOKEN not in json.dumps(document)


async def test_a_tool_may_need_approval_and_an_agent_that_resumes_repeats_no_call(
    ring: AgentRing, things: dict[str, Any]
) -> None:
    tools = ["mcp:things/shout", {"ref": "mcp:things/weather", "name": "look", "approval": True}]
    turns = [calls(("things__shout", {"text": "hi"})), calls(("look", {"city": "Bern"})), {"text": "{{last_tool}}"}]
    agent = await ring.publish(**script(*turns), tools=tools)

    execution_id = await ring.begin(agent["slug"])
    waiting = await ring.reached(execution_id, Status.WAITING)
    url = f"{ring.path}/executions/{execution_id}/events/look"
    assert (await ring.client.client.post(url, json={"approved": True})).status_code == 202
    document = await ring.ended(execution_id)

    assert things["tool_count"] == 7
    assert waiting["waiting_on"]["reason"] == "approval"
    assert json.loads(document["output"])["degrees"] == 21
    assert document["attempt"] >= 2, "on a slow machine it gave its container back for the first tool, too"
    assert len(await ring.model_calls(execution_id)) == 3
    assert [child["component"]["slug"] for child in await ring.children(execution_id)] == ["mcp-things"] * 2


def test_the_way_out_of_a_server_leads_to_it_alone(platform: Platform, address: str) -> None:
    """Without the token it is refused; what does not listen is told of; neither is an error of the command's own."""
    refused = platform.flow("mcp", "add", "strange", "--http", address)
    shown = platform.flow("mcp", "show", "strange")
    away = platform.flow("mcp", "add", "strange", "--http", "http://127.0.0.1:1/mcp")
    closed = platform.flow("mcp", "add", "strange", "--http", "http://127.0.0.2:80/mcp")
    removed = platform.flow("mcp", "remove", "strange")

    assert refused.returncode == 1
    assert "mcp_unreachable" in refused.stderr
    assert "401 Unauthorized; are its headers and their secrets right?: who are you?" in refused.stderr
    assert "401 Unauthorized" in shown.stderr
    assert "mcp_unreachable" in away.stderr
    assert "closed" in closed.stderr or "FLOW_EGRESS_ALLOW" in closed.stderr or "403" in closed.stderr
    assert removed.returncode == 0


def test_a_program_is_a_server_with_what_was_declared_and_no_credential(platform: Platform, things: Any) -> None:
    wanted = ("--package", "mcp", "--secret", "THINGS_TOKEN", "--env", "MODE=quick", "--data", platform.data)
    added = flow("mcp", "add", "local", *wanted, "--", "python", "-c", PROGRAM.read_text())
    assert added.returncode == 0, added.stderr

    given = platform.output_of("mcp", "call", "local", "variables")["structuredContent"]
    listed = platform.output_of("mcp", "list", "--json")
    unknown = platform.flow("mcp", "call", "local", "nothing")

    assert "local: things 1.2, 7 tools" in added.stderr
    assert (given["MODE"], given["THINGS_TOKEN"]) == ("quick", "[redacted]")
    assert not {"AUTH_TOKEN", "NATS_URL", "PLATFORM_API_URL", "EXECUTION_ID"} & given.keys()
    assert not {"HTTPS_PROXY", "ALL_PROXY"} & given.keys()
    assert [(one["name"], one["tool_count"]) for one in listed] == [("local", 7), ("things", things["tool_count"])]
    assert "has no tool 'nothing'" in unknown.stderr
