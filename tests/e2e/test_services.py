"""A service on a whole platform: published from a file, called over HTTP, by the CLI, over MCP, and by an agent."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from flow_sdk.wire.status import Status
from tests.support.agent_platform import AgentRing, agent_platform, calls, script
from tests.support.flow_program import Platform

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

COMPONENTS = Path(__file__).with_name("agent_components.py")
SERVICE = {
    "slug": "weather",
    "name": "Weather",
    "ring": "dev",
    "endpoints": [
        {
            "name": "forecast",
            "method": "GET",
            "path": "/cities/{city}/forecast",
            "component": {"kind": "code_block", "slug": "forecast"},
            "auth": "public",
        },
        {
            "name": "double",
            "method": "POST",
            "path": "/double",
            "component": {"kind": "transform", "slug": "doubled"},
            "async_eligible": True,
        },
        {
            "name": "refuse",
            "method": "POST",
            "path": "/refuse",
            "component": {"kind": "code_block", "slug": "refuses"},
            "timeout_seconds": 60,
        },
    ],
}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with agent_platform(tmp_path_factory.mktemp("services"), components=COMPONENTS) as started:
        yield started


@pytest.fixture(scope="module")
def base(platform: Platform) -> str:
    """The path of the service, in its first version."""
    file = platform.folder / "weather.json"
    file.write_text(json.dumps(SERVICE))
    done = platform.flow("service", "publish", str(file))
    assert (done.returncode, done.stderr) == (0, "published version 1 of weather\n")
    again = platform.flow("service", "publish", str(file))
    assert again.stderr == "unchanged: version 1 of weather\n"
    assert again.stdout == done.stdout
    return done.stdout.strip()


@pytest_asyncio.fixture
async def ring(platform: Platform) -> AsyncIterator[AgentRing]:
    async with AgentRing(platform) as client:
        yield client


async def test_its_endpoints_are_called_over_http(ring: AgentRing, base: str) -> None:
    client = ring.client.client
    async with httpx2.AsyncClient(base_url=str(client.base_url), trust_env=False) as nobody:
        public = await nobody.get(f"{base}/cities/Bern/forecast")
        private = await nobody.post(f"{base}/double", json=4)
    doubled = await client.post(f"{base}/double", json=4)
    not_a_number = await client.post(f"{base}/double", json="four")
    failed = await client.post(f"{base}/refuse", json={"reason": "no"})
    job = (await client.post(f"{base}/async/double", json=5)).json()
    await ring.ended(job["job_id"])
    done = (await client.get(job["poll_url"])).json()
    skills = await ring.client.get_service_skills("weather", version=1)

    assert (public.status_code, public.json()) == (200, {"city": "Bern", "degrees": 21})
    assert private.status_code == 401
    assert (doubled.status_code, doubled.json()) == (200, 8)
    assert (not_a_number.status_code, not_a_number.json()["details"][0]["field"]) == (422, "body")
    assert (failed.status_code, failed.json()["code"]) == (502, "endpoint_failed")
    assert "ValueError" in failed.text or "no" in failed.json()["message"]
    assert (done["status"], done["result"]) == ("completed", 10)
    assert [skill["name"] for skill in skills["skills"]] == ["double", "forecast", "refuse"]
    assert skills["skills"][1]["path_parameters_schema"]["required"] == ["city"]


def test_the_command_calls_lists_and_shows(platform: Platform, base: str) -> None:
    called = platform.output_of("service", "call", "weather", "forecast", "--input", '{"city": "Rome"}')
    failed = platform.flow("service", "call", "weather", "refuse", "--input", '{"reason": "because"}')
    [listed] = [one for one in platform.output_of("service", "list", "--json") if one["slug"] == "weather"]
    shown = platform.flow("service", "show", "weather")

    assert called == {"city": "Rome", "degrees": 21}
    assert failed.returncode == 1
    assert "because" in failed.stderr
    assert (listed["slug"], listed["latest_version"]) == ("weather", 1)
    assert base == f"{listed['base_path']}/v1"
    assert "/cities/{city}/forecast" in shown.stdout


async def test_an_mcp_client_calls_real_containers(ring: AgentRing, base: str) -> None:
    headers = {"Authorization": f"Bearer {ring.client.auth_token}"}
    url = f"{ring.client.base_url}{ring.path}/mcp?ring=dev"
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60, trust_env=False) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        names = {tool.name for tool in (await client.list_tools()).tools}
        forecast = await client.call_tool("service__weather__forecast", {"city": "Oslo"})
        doubled = await client.call_tool("transform__doubled", {"input": 21})
        refused = await client.call_tool("code_block__refuses", {"reason": "not today"})
    execution_id = (forecast.meta or {})["flow/execution_id"]
    document = await ring.get(f"/executions/{execution_id}")

    assert names >= {"service__weather__forecast", "transform__doubled", "code_block__refuses"}
    assert forecast.structured_content == {"city": "Oslo", "degrees": 21}
    assert doubled.content[0].text == "42"
    assert refused.is_error
    assert "not today" in refused.content[0].text
    assert (document["status"], document["lifecycle_event"]) == (Status.COMPLETED, "mcp_session")


async def test_an_agent_takes_the_service_as_tools(ring: AgentRing, base: str) -> None:
    asks = script(calls(("forecast", {"city": "Bern"})), {"text": "It is {{last_tool}}"})
    agent = await ring.publish(**asks, tools=["service:weather"])

    document = await ring.ask(agent["slug"])

    assert document["output"] == 'It is {"city": "Bern", "degrees": 21}'
    [child] = await ring.children(document["execution_id"])
    assert (child["component"]["slug"], child["status"]) == ("forecast", Status.COMPLETED)


async def test_a_service_is_declared_in_python_beside_its_components_and_the_agent_that_takes_it(
    ring: AgentRing, platform: Platform, tmp_path: Path
) -> None:
    file = tmp_path / "counting.py"
    text = """
from flow_sdk import agent, code_block, endpoint, service

@code_block
def add_up(numbers: list[int]) -> int:
    return sum(numbers)

counting = service("counting", endpoints=[endpoint(add_up, "POST", "/sums", name="add", tags=TAGS)])
counter = agent("counter", model="test/echo", prompt="You count.", tools=[counting])
"""
    for tags, change in (("[]", "created v1"), ("['sums']", "updated v2"), ("['sums']", "unchanged v2")):
        file.write_text(text.replace("TAGS", tags))
        done = platform.flow("publish", file)
        found = ("code-blocks/add-up", "services/counting", "agents/counter")
        assert done.stdout.splitlines() == [f"{label}: {change}" for label in found], done.stderr

    called = platform.output_of("service", "call", "counting", "add", "--input", '{"numbers": [1, 2]}')
    document = await ring.ask("counter", 'call add {"numbers": [20, 3]}')

    assert called == 3
    assert "23" in document["output"]
    [child] = await ring.children(document["execution_id"])
    assert (child["component"]["slug"], child["status"]) == ("add-up", Status.COMPLETED)
