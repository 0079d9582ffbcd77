"""Server-sent events over a real connection: replay, live, end, and what a reader who leaves leaves behind."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio

from flow_platform.api import events as api_events
from flow_platform.domain.principal import Role
from flow_sdk.wire.runner import Assignment
from tests.contract.api.hands import Platform, Tenant, refused
from tests.contract.api.serving import serving
from tests.support.eventually import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def base_url(platform: Platform) -> AsyncIterator[str]:
    async with serving(platform.app) as url:
        yield url


class Reader:
    """One stream, as a browser reads it."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.aiter_lines()
        self.has_ended = False

    async def next(self) -> dict[str, Any] | None:
        """The next event as its fields, or None at the end of the stream."""
        fields: dict[str, Any] = {}
        async with asyncio.timeout(60):
            async for line in self._lines:
                if line == "" and "data" in fields:
                    return fields | {"data": json.loads(fields["data"])}
                name, _, value = line.partition(": ")
                if name:
                    fields[name] = value
        self.has_ended = True
        return None

    async def rest(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while (event := await self.next()) is not None:
            found.append(event)
        return found


async def _read(
    base_url: str, tenant: Tenant, execution_id: str, query: str = "", **headers: str
) -> list[dict[str, Any]]:
    url = f"{base_url}{tenant.path}/executions/{execution_id}/events{query}"
    async with _client(tenant.token()) as client, client.stream("GET", url, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        return await Reader(answer).rest()


def _client(token: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60, trust_env=False)


def _events_url(base_url: str, tenant: Tenant, assignment: Assignment) -> str:
    return f"{base_url}{tenant.path}/executions/{assignment.execution_id}/events"


async def test_events_are_replayed_then_live_then_end(base_url: str, tenant: Tenant) -> None:
    assignment = await tenant.running()
    platform = tenant.platform
    await platform.emit(assignment, 1, "message", {"text": "one\n\ndata: forged"})
    await platform.emit(assignment, 2, "chunk", "two")
    async with (
        _client(tenant.token()) as client,
        client.stream("GET", _events_url(base_url, tenant, assignment)) as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        reader = Reader(answer)
        first, second = await reader.next(), await reader.next()
        assert first is not None
        assert (first["id"], first["event"]) == ("1", "message")
        assert first["data"]["event_data"] == {"text": "one\n\ndata: forged"}
        assert first["data"]["execution_id"] == assignment.execution_id
        assert second is not None
        assert second["event"] == "chunk"
        await platform.emit(assignment, 3, "done", None)
        live = await reader.next()
        assert live is not None
        assert (live["id"], live["event"]) == ("3", "done")
        await platform.finish(assignment, 1, events=3)
        end = await reader.next()
        assert end is not None
        assert end["event"] == "end"
        assert "id" not in end
        assert end["data"]["status"] == end["data"]["event_data"]["status"] == "completed"
        assert await reader.next() is None


async def test_a_reader_comes_back_where_it_was(base_url: str, tenant: Tenant) -> None:
    assignment = await tenant.running()
    for sequence in range(1, 6):
        await tenant.platform.emit(assignment, sequence, "progress", sequence)
    await tenant.platform.finish(assignment, 1, events=5)

    async def positions(query: str = "", **headers: str) -> list[str | None]:
        return [event.get("id") for event in await _read(base_url, tenant, assignment.execution_id, query, **headers)]

    assert await positions() == ["1", "2", "3", "4", "5", None]
    assert await positions("?after=3") == ["4", "5", None]
    assert await positions(**{"Last-Event-ID": "4"}) == ["5", None]
    assert await positions("?after=1", **{"Last-Event-ID": "4"}) == ["5", None]  # A browser repeats its address.
    assert await positions("?after=99") == [None]


async def test_a_long_history_comes_whole_and_in_order(base_url: str, tenant: Tenant) -> None:
    assignment = await tenant.running()
    body = [(n, "log", {"text": "x" * 100}) for n in range(1, 1204)]
    await asyncio.gather(*(tenant.platform.emit(assignment, *one) for one in body))
    await tenant.platform.finish(assignment, 1, events=1203)
    events = await _read(base_url, tenant, assignment.execution_id)
    assert [event.get("id") for event in events] == [*(str(n) for n in range(1, 1204)), None]


@pytest.mark.parametrize("event_type", ["end", "a\nevent: forged", "", "ü", "data: x", "x" * 70])
async def test_an_events_type_cannot_forge_the_stream(base_url: str, tenant: Tenant, event_type: str) -> None:
    assignment = await tenant.running()
    await tenant.platform.emit(assignment, 1, event_type, None)
    await tenant.platform.finish(assignment, 1, events=1)
    events = await _read(base_url, tenant, assignment.execution_id)
    assert [event["event"] for event in events] == ["message", "end"] or event_type == "x" * 70
    assert len(events) == 2
    assert events[0]["data"]["event_type"] == (event_type or "message")[:64]


async def test_what_is_refused_before_the_stream_begins(base_url: str, tenant: Tenant, other: Tenant) -> None:
    assignment = await tenant.running()
    url = _events_url(base_url, tenant, assignment)
    async with _client(tenant.token()) as client:
        refused(await client.get(f"{url}?after=-1"), 422, "invalid_input")
        refused(await client.get(url, headers={"Last-Event-ID": "abc"}), 422, "invalid_input")
        absent = url.replace(assignment.execution_id, str(uuid.uuid4()))
        refused(await client.get(absent), 404, "not_found")
    async with _client(other.token()) as client:
        refused(await client.get(url), 404, "not_found")


async def test_a_reader_who_leaves_leaves_nothing(base_url: str, tenant: Tenant, platform: Platform) -> None:
    async def open_streams() -> float:
        async with _client(tenant.token()) as client:
            text = (await client.get(f"{base_url}/metrics")).text
        return float(text.partition("\nflow_event_streams ")[2].partition("\n")[0])

    assignment = await tenant.running()
    waiters = platform.engine._wakeups._waiters
    await platform.emit(assignment, 1, "message", 1)
    await eventually(open_streams, lambda count: count == 0)  # Those of other tests are gone.
    url = _events_url(base_url, tenant, assignment)
    async with _client(tenant.token()) as client, client.stream("GET", url) as answer:
        reader = Reader(answer)  # Kept: a forgotten one closes the stream.
        assert await reader.next()
        assert await open_streams() == 1
        assert assignment.execution_id in waiters
    await eventually(open_streams, lambda count: count == 0)
    assert assignment.execution_id not in waiters


async def test_a_stream_ends_with_its_credential(base_url: str, tenant: Tenant, platform: Platform) -> None:
    assignment = await tenant.running()
    short = tenant.token(Role.VIEWER, ttl=timedelta(seconds=1))
    async with _client(short) as client, client.stream("GET", _events_url(base_url, tenant, assignment)) as answer:
        reader = Reader(answer)
        sequence = 0
        seen: list[Any] = []

        async def emit() -> bool:
            nonlocal sequence
            sequence += 1
            await platform.emit(assignment, sequence, "progress", sequence)
            return reader.has_ended

        async def read() -> None:
            seen.extend(await reader.rest())

        reading = asyncio.create_task(read())
        await eventually(emit, bool)
        await reading
    assert "end" not in [event["event"] for event in seen]  # Cut, not finished: the reader comes back.


async def test_streams_are_bounded(base_url: str, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_events, "MAX_STREAMS", 0)
    assignment = await tenant.running()
    async with _client(tenant.token()) as client:
        answer = await client.get(_events_url(base_url, tenant, assignment))
    refused(answer, 429, "rate_limited")
    assert int(answer.headers["retry-after"]) >= 1
