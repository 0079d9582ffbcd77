"""A server started by itself says all that its first user needs."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from flow_platform.bus.server import NatsServer
from tests.support.flow_program import FLOW, clean_environment, flow

pytestmark = pytest.mark.slow


@pytest_asyncio.fixture
async def nats_url(tmp_path: Path) -> AsyncIterator[str]:
    server = NatsServer(tmp_path / "nats")
    await server.start()
    yield server.url
    await server.stop()


async def test_its_words_lead_to_the_workspace_and_the_token(tmp_path: Path, nats_url: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(FLOW, "api", "--port", "0", "--data", tmp_path / "data", "--log-level", "error"),
        env=clean_environment(FLOW_NATS_URL=nats_url),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        lines = [(await process.stderr.readline()).decode() for _ in range(4)]
        url = lines[0].split()[-1]
        said = {name.strip(): value for name, _, value in (line.strip().rpartition("  ") for line in lines[1:])}
        assert set(said) == {"organization", "workspace", "admin token"}, lines
        token = await asyncio.to_thread(Path(said["admin token"].strip()).read_text)
        async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {token.strip()}"}) as client:
            identity = (await client.get("/api/v1/auth/whoami")).json()
            page = await client.get("/", headers={"Authorization": ""})
        assert identity["org_id"] == said["organization"].strip()
        assert [workspace["id"] for workspace in identity["workspaces"]] == [said["workspace"].strip()]
        assert (page.status_code, "<h1>Flow</h1>" in page.text) == (200, True)
        listed = await asyncio.to_thread(flow, "ps", "--json", FLOW_URL=url, FLOW_TOKEN=token.strip())
        assert (listed.returncode, listed.stdout) == (0, "[]\n"), listed.stderr
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.communicate()
