"""Agents on a platform of their own, on the `test/` provider and without any index but what is installed here."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx

from flow_sdk.wire.agent import PACKAGES
from tests.support.clients import RingClient
from tests.support.flow_program import Platform, running
from tests.support.installed_packages import InstalledPackages

PRICES = '[prices]\nversion = "1"\n[prices.models]\n"test/*" = { prompt = 1000, completion = 1000 }\n'
"""1,000 micro-credits a token: what a limit of costs is tried with."""

_numbers = itertools.count(1)


@contextlib.contextmanager
def agent_platform(folder: Path, *options: str, components: Path, **environment: str) -> Iterator[Platform]:
    models = folder / "models.toml"
    models.write_text(PRICES)
    with InstalledPackages(*PACKAGES, "flow-sdk") as index:
        wanted = {**index.environment, "FLOW_MODELS_FILE": str(models), **environment}
        with running(folder, *options, **wanted) as platform:
            published = platform.flow("publish", components)
            assert published.returncode == 0, published.stderr
            yield platform


def script(*turns: dict[str, Any], then: str = "error") -> dict[str, Any]:
    """Fields of an agent whose model does this."""
    return {"model": "test/script", "settings": {"metadata": {"script": {"turns": list(turns), "then": then}}}}


def calls(*named: tuple[str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    """A turn that calls tools."""
    return {"tool_calls": [{"name": name, "arguments": arguments} for name, arguments in named], **more}


class AgentRing(RingClient):
    """A client that publishes and runs agents."""

    @property
    def path(self) -> str:
        return f"/api/v1/orgs/{self.client.org_id}/workspaces/{self.client.workspace_id}"

    async def publish(self, kind: str = "agents", **body: Any) -> dict[str, Any]:
        """What a publish answers; an agent has a slug of its own unless it is given one."""
        answer = await self.client.client.post(f"{self.path}/{kind}", json={"slug": f"a{next(_numbers)}", **body})
        assert answer.status_code in (200, 201), answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def refused(self, kind: str = "agents", **body: Any) -> dict[str, Any]:
        answer = await self.client.client.post(f"{self.path}/{kind}", json={"slug": f"a{next(_numbers)}", **body})
        assert answer.status_code == 422, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def ask(self, slug: str, prompt: str = "Go on.", **fields: Any) -> dict[str, Any]:
        """The last document of a run in mode `isolated`."""
        return await self.ended(await self.begin(slug, prompt, **fields))

    async def begin(self, slug: str, prompt: str = "Go on.", **fields: Any) -> str:
        handle = await self.client.submit_agent_execution(slug, {"prompt": prompt, **fields}, ring_id=self.ring_id)
        return str(handle["execution_id"])

    async def get(self, path: str) -> Any:
        answer = await self.client.client.get(f"{self.path}{path}")
        assert answer.status_code == httpx.codes.OK, answer.text
        return answer.json()

    async def children(self, execution_id: str) -> list[dict[str, Any]]:
        """Oldest first."""
        return (await self.get(f"/executions?parent_id={execution_id}"))["items"][::-1]

    async def model_calls(self, execution_id: str) -> list[dict[str, Any]]:
        found = await self.get("/model-calls?limit=200")
        return [call for call in found["items"] if call["execution_id"] == execution_id]

    async def events(self, execution_id: str) -> list[tuple[str, Any]]:
        """Of a run that has ended, in their order."""
        return [event async for event in self.follow(execution_id)]

    async def follow(self, execution_id: str) -> AsyncIterator[tuple[str, Any]]:
        """Events as they come, to the end."""
        name = ""
        url = f"{self.path}/executions/{execution_id}/events"
        async with self.client.client.stream("GET", url, timeout=60) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    data = json.loads(line.removeprefix("data: "))
                    yield name, data.get("event_data", data) if isinstance(data, dict) else data
