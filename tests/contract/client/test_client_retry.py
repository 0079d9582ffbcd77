"""What is repeated, how often, with which pauses, and never as another request."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from flow_sdk import PlatformClient, errors
from flow_sdk.retry import JITTER, RETRYABLE_STATUSES, STATUS, SUBMIT, parse_retry_after
from tests.contract.client.recording_server import HANG_UP, Recorded, RecordingServer, Reply

ACCEPTED = Reply(202, {"execution_id": "e1", "status": "queued"})
DONE = Reply(200, {"execution_id": "e1", "status": "completed"})


def submit(client: PlatformClient) -> Awaitable[Any]:
    return client.submit_code_block_execution("cb", {"a": 1}, ring_id="r")


def pauses(requests: list[Recorded]) -> list[float]:
    return [later.at - earlier.at for earlier, later in itertools.pairwise(requests)]


@pytest.mark.parametrize("status", sorted(RETRYABLE_STATUSES))
async def test_a_status_that_may_get_better_is_repeated(
    status: int, server: RecordingServer, client: PlatformClient
) -> None:
    server.answer(Reply(status, {}), ACCEPTED)
    assert await submit(client) == ACCEPTED.body
    first, second = server.requests
    assert first.body == second.body
    assert first.headers == second.headers, "the same Idempotency-Key above all"


async def test_a_lost_connection_is_repeated(server: RecordingServer, client: PlatformClient) -> None:
    server.answer(HANG_UP, ACCEPTED)
    assert await submit(client) == ACCEPTED.body
    assert server.requests[0].header("Idempotency-Key") == server.requests[1].header("Idempotency-Key")


async def test_a_read_timeout_is_repeated(server: RecordingServer, make_client: Callable[..., PlatformClient]) -> None:
    silent = asyncio.Event()

    async def handler(_: Recorded) -> Reply:
        if len(server.requests) == 1:
            await silent.wait()
        return ACCEPTED

    server.handler = handler
    assert await submit(make_client(timeout=0.3)) == ACCEPTED.body
    assert server.requests[0].headers == server.requests[1].headers


@pytest.mark.slow
async def test_three_repeats_with_growing_pauses_then_the_error(
    server: RecordingServer, client: PlatformClient
) -> None:
    async def always_busy(_: Recorded) -> Reply:
        return Reply(503, {"code": "store_unavailable", "message": "busy"})

    server.handler = always_busy
    actions: dict[str, tuple[Callable[[], Awaitable[Any]], float]] = {
        "/api/v1/orgs/o1/workspaces/w1/code-blocks/x/executions": (
            lambda: client.submit_code_block_execution("x", {}, ring_id="r"),
            0.25,
        ),
        "/api/v1/orgs/o1/workspaces/w1/workflows/x/executions": (
            lambda: client.submit_workflow_execution("x", {}, ring_id="r"),
            0.25,
        ),
        "/api/v1/orgs/o1/workspaces/w1/agents/x/executions": (
            lambda: client.submit_agent_execution("x", {}, ring_id="r"),
            0.25,
        ),
        "/api/v1/component-execution/agents/x/execute": (lambda: client.execute_agent("x", {}, {}), 0.25),
        "/api/v1/component-execution/transforms/x/execute": (lambda: client.execute_transform("x", {}, {}), 0.25),
        "/api/v1/orgs/o1/workspaces/w1/executions/x": (lambda: client.get_execution_status("x"), 0.2),
        "/api/v1/orgs/o1/workspaces/w1/executions/x/cancel": (lambda: client.cancel_execution("x"), 0.2),
    }
    results = await asyncio.gather(*(action() for action, _ in actions.values()), return_exceptions=True)
    for result in results:
        assert type(result) is errors.PlatformServerError
        assert (result.status_code, result.code) == (503, "store_unavailable")
    for path, (_, first_delay) in actions.items():
        mine = [request for request in server.requests if request.path == path]
        assert len(mine) == 4, "the first attempt and three repeats"
        assert len({request.header("Idempotency-Key") for request in mine}) == 1
        for index, pause in enumerate(pauses(mine)):
            assert pause >= first_delay * 2**index - 0.01


def test_pauses_double_and_jitter_only_adds() -> None:
    for retry, first in ((SUBMIT, 0.25), (STATUS, 0.2)):
        assert (retry.retries, retry.first_delay_seconds) == (3, first)
        for attempt in range(3):
            drawn = [retry.pause(attempt, None) for _ in range(200)]
            assert min(drawn) >= first * 2**attempt
            assert max(drawn) <= first * 2**attempt * (1 + JITTER)
            assert len(set(drawn)) > 100
        assert retry.pause(0, 7.0) == 7.0
        assert retry.pause(0, 0.0) >= first


async def test_each_logical_post_has_a_key_of_its_own(server: RecordingServer, client: PlatformClient) -> None:
    server.answer(ACCEPTED, ACCEPTED)
    await submit(client)
    await submit(client)
    assert server.requests[0].header("Idempotency-Key") != server.requests[1].header("Idempotency-Key")


async def test_retry_after_is_obeyed(server: RecordingServer, client: PlatformClient) -> None:
    server.answer(Reply(429, {}, {"Retry-After": "1"}), ACCEPTED)
    await submit(client)
    assert pauses(server.requests)[0] >= 1.0


def test_retry_after_as_number_date_and_nonsense() -> None:
    assert parse_retry_after("120") == 120
    assert parse_retry_after(None) is None
    assert parse_retry_after("soon") is None
    assert parse_retry_after("-1") is None
    assert parse_retry_after("²") is None
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)  # noqa: TID251
    assert 90 < (parse_retry_after(later) or 0) <= 100
    assert parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0


async def test_a_rate_limit_beyond_the_callers_deadline_is_raised_at_once(
    server: RecordingServer, client: PlatformClient
) -> None:
    server.answer(Reply(429, {"code": "rate_limited", "message": "later"}, {"Retry-After": "3600"}))
    with pytest.raises(errors.PlatformRateLimitError) as caught:
        await client.execute_code_block("cb", {}, {}, ring_id="r", timeout_seconds=30)
    assert (caught.value.retry_after, caught.value.status_code, caught.value.code) == (3600.0, 429, "rate_limited")
    assert len(server.requests) == 1


async def test_no_pause_goes_beyond_the_deadline(server: RecordingServer, client: PlatformClient) -> None:
    async def always_busy(_: Recorded) -> Reply:
        return Reply(503, {})

    server.handler = always_busy
    with pytest.raises(errors.PlatformServerError):
        await client.execute_code_block("cb", {}, {}, ring_id="r", timeout_seconds=1.7)
    assert len(server.requests) < 4, "pauses of 0.25 s and 0.5 s fit before the deadline, another of 1 s would not"


async def test_a_conflict_of_a_reused_key_is_not_repeated(server: RecordingServer, client: PlatformClient) -> None:
    server.answer(Reply(409, {"code": "idempotency_key_reused", "message": "other body"}))
    with pytest.raises(errors.PlatformConflictError) as caught:
        await submit(client)
    assert caught.value.code == "idempotency_key_reused"
    assert len(server.requests) == 1
