"""A stream of a model ends with the attempt whose token opened it, wherever that token has got to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.contract.api.hands import Platform, Tenant
from tests.contract.api.models.asking import CHAT, body
from tests.contract.api.serving import serving
from tests.support.eventually import eventually
from tests.support.fake_upstream import Answer, FakeUpstream, chunks

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def base_url(platform: Platform) -> AsyncIterator[str]:
    async with serving(platform.app) as url:
        yield url


@pytest.mark.parametrize("is_streamed", [True, False])
async def test_it_ends_with_the_attempt(
    tenant: Tenant, upstream: FakeUpstream, base_url: str, platform: Platform, is_streamed: bool
) -> None:
    assignment = await tenant.running()
    gate = asyncio.Event()
    upstream.will(Answer(events=chunks("one ", "two"), gate=gate, gate_at=1))
    headers = {"Authorization": f"Bearer {assignment.token}"}
    received = b""
    async with httpx.AsyncClient(headers=headers, trust_env=False) as client, asyncio.timeout(100):
        asking = client.stream("POST", base_url + CHAT, json=body(model="up/m", stream=is_streamed))

        async def read() -> int:
            nonlocal received
            try:
                async with asking as answer:
                    async for part in answer.aiter_bytes():
                        received += part
                    return answer.status_code
            except httpx.RemoteProtocolError:
                return 0

        async def has_begun() -> bool:
            return b"one" in received if is_streamed else bool(upstream.seen)

        reading = asyncio.create_task(read())
        await eventually(has_begun, bool)
        done, _ = await asyncio.wait({reading}, timeout=0.6)
        assert not done
        await platform.finish(assignment, 1)
        status = await asyncio.wait_for(reading, 30)
    gate.set()
    assert status == (0 if is_streamed else 401)
    assert b"two" not in received
    assert b"[DONE]" not in received
