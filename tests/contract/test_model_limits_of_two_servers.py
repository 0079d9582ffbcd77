"""Limits of model calls with several servers over one database, in both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import pytest

from flow_platform.domain.clock import ManualClock
from flow_platform.domain.errors import RateLimited
from flow_platform.gateway.configuration import PlatformModels
from flow_platform.gateway.keys import SecretKeys
from flow_platform.gateway.model_gateway import ModelGateway
from flow_platform.gateway.ports import Caller
from flow_platform.store.base import Store

SECOND = timedelta(seconds=1)
Start = Callable[[], ModelGateway]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def start(store: Store, clock: ManualClock, request: pytest.FixtureRequest) -> AsyncIterator[Start]:
    """Starts a server's gateway, with the limit that the test names."""
    started: list[ModelGateway] = []

    def make() -> ModelGateway:
        models = PlatformModels.model_validate({"limits": {"test/*": request.param}})
        started.append(ModelGateway(store, clock, SecretKeys(None, {}), models))
        return started[-1]

    yield make
    for gateway in started:
        await gateway.close()


async def ask(gateway: ModelGateway, text: str = "one two", workspace_id: str = "w") -> Any:
    body = {"messages": [{"role": "user", "content": text}], "stream": True}
    reply = await gateway.chat(Caller("o", workspace_id), ["test/echo"], body)
    async with aclosing(reply.flight.chunks()) as chunks:
        async for _ in chunks:
            pass
    return reply.flight.answer.result()


@pytest.mark.parametrize("start", [{"requests_per_minute": 4}], indirect=True)
async def test_requests_of_all_servers_count_within_a_second(start: Start, clock: ManualClock) -> None:
    one, two = start(), start()
    await ask(two)
    for _ in range(3):
        await ask(one)

    with pytest.raises(RateLimited, match="4 requests per minute"):
        await ask(one)
    clock.advance(SECOND)
    with pytest.raises(RateLimited, match="4 requests per minute"):
        await ask(two)
    await ask(two, workspace_id="another")
    clock.advance(timedelta(minutes=1))
    await ask(two)


@pytest.mark.parametrize("start", [{"tokens_per_minute": 50}], indirect=True)
async def test_tokens_of_all_servers_count_once(start: Start, clock: ManualClock) -> None:
    one, two = start(), start()
    ten_words = " ".join("abcdefghij")
    for gateway in (two, one, two):
        usage = (await ask(gateway, ten_words))["usage"]
        assert usage["total_tokens"] == 20
        clock.advance(SECOND)

    for gateway in (one, two):
        with pytest.raises(RateLimited, match="50 tokens per minute"):
            await ask(gateway)


@pytest.mark.parametrize("start", [{"requests_per_minute": 2}], indirect=True)
async def test_a_server_that_starts_knows_of_the_last_minute(start: Start, clock: ManualClock) -> None:
    before = start()
    await ask(before)
    await ask(before)

    with pytest.raises(RateLimited, match="2 requests per minute"):
        await ask(start())
    clock.advance(timedelta(minutes=2))
    after = start()
    await ask(after)
    await ask(after)
