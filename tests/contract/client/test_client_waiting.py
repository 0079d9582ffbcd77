"""`await_execution_result` and the waiting half of `execute_*`."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable

import pytest

from flow_sdk import PlatformClient, errors
from flow_sdk.waiting import HOLD_SECONDS, MAX_HELD_READS
from tests.contract.client.recording_server import HANG_UP, Recorded, RecordingServer, Reply

RUNNING = Reply(200, {"execution_id": "e1", "status": "running"})
DONE = Reply(200, {"execution_id": "e1", "status": "completed"})
NOT_FOUND = Reply(404, {"code": "not_found", "message": "no such execution"})
ACCEPTED = Reply(202, {"execution_id": "e1", "status": "queued"})


def hold_of(request: Recorded) -> int:
    found = re.fullmatch(r"wait=(\d+)", request.header("Prefer") or "wait=0")
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize(
    "status", ["completed", "failed", "timeout", "dead_letter", "cancelled", "Completed", "FAILED"]
)
async def test_each_terminal_document_is_returned(status: str, server: RecordingServer, client: PlatformClient) -> None:
    server.answer(Reply(200, {"execution_id": "e1", "status": status, "unknown": {"field": 1}}))
    assert await client.await_execution_result("e1") == {
        "execution_id": "e1",
        "status": status,
        "unknown": {"field": 1},
    }


@pytest.mark.parametrize("status", ["queued", "running", "waiting", "cancelling", "brand_new", None])
async def test_every_other_status_is_read_again(
    status: str | None, server: RecordingServer, client: PlatformClient
) -> None:
    server.answer(Reply(200, {"status": status}), Reply(200, {}), DONE)
    assert await client.await_execution_result("e1", poll_interval_seconds=0) == DONE.body
    assert len(server.requests) == 3


async def test_a_server_that_does_not_hold_is_polled_at_the_interval(
    server: RecordingServer, client: PlatformClient
) -> None:
    server.answer(RUNNING, RUNNING, DONE)
    await client.await_execution_result("e1", poll_interval_seconds=0.2)
    first, second, third = server.requests
    assert second.at - first.at >= 0.2
    assert third.at - second.at >= 0.2
    assert {hold_of(request) for request in server.requests} == {HOLD_SECONDS}


async def test_a_held_answer_comes_when_there_is_one(server: RecordingServer, client: PlatformClient) -> None:
    ended = asyncio.Event()

    async def handler(_: Recorded) -> Reply:
        await ended.wait()
        return DONE

    server.handler = handler
    waiting = asyncio.create_task(client.await_execution_result("e1", poll_interval_seconds=3600))
    while not server.requests:  # noqa: ASYNC110 - until the read is there.
        await asyncio.sleep(0)
    ended.set()
    assert await waiting == DONE.body
    assert len(server.requests) == 1


async def test_after_a_held_answer_the_next_read_follows_at_once(
    server: RecordingServer, client: PlatformClient
) -> None:
    async def handler(request: Recorded) -> Reply:
        if len(server.requests) > 1:
            return DONE
        await asyncio.sleep(2.0)
        return RUNNING

    server.handler = handler
    # A pause of poll_interval would take all the time that is left.
    result = await client.await_execution_result("e1", timeout_seconds=3.9, poll_interval_seconds=1.95)
    assert result == DONE.body
    assert [hold_of(request) > 0 for request in server.requests] == [True, True], "bounded by the time that is left"


async def test_deadline(server: RecordingServer, client: PlatformClient) -> None:
    async def handler(_: Recorded) -> Reply:
        return RUNNING

    server.handler = handler
    started = time.monotonic()
    with pytest.raises(TimeoutError) as caught:
        await client.await_execution_result("e1", timeout_seconds=0.3, poll_interval_seconds=0.1)
    assert str(caught.value) == "Execution e1 timed out after 0.3s"
    assert type(caught.value) is TimeoutError
    assert time.monotonic() - started >= 0.3


async def test_a_held_read_ends_at_the_deadline(server: RecordingServer, client: PlatformClient) -> None:
    never = asyncio.Event()

    async def handler(_: Recorded) -> Reply:
        await never.wait()
        return DONE

    server.handler = handler
    with pytest.raises(TimeoutError, match=r"^Execution e1 timed out after 1s$"):
        await client.await_execution_result("e1", timeout_seconds=1)
    assert len(server.requests) == 1


async def test_at_least_one_read_happens(server: RecordingServer, client: PlatformClient) -> None:
    server.answer(DONE, RUNNING)
    assert await client.await_execution_result("e1", timeout_seconds=0) == DONE.body
    with pytest.raises(TimeoutError, match="timed out after 0s"):
        await client.await_execution_result("e1", timeout_seconds=0)
    assert len(server.requests) == 2
    assert [hold_of(request) for request in server.requests] == [0, 0]


async def test_not_found_is_tolerated_for_a_while(server: RecordingServer, client: PlatformClient) -> None:
    server.answer(NOT_FOUND, NOT_FOUND, DONE)
    assert await client.await_execution_result("e1", poll_interval_seconds=0.1) == DONE.body
    assert server.requests[1].at - server.requests[0].at >= 0.1


@pytest.mark.parametrize(("budget", "tolerance"), [(60, 0.3), (0.3, 30), (0.3, 0.3)])
async def test_not_found_is_raised_when_the_tolerance_ends(
    budget: float, tolerance: float, server: RecordingServer, client: PlatformClient
) -> None:
    async def handler(_: Recorded) -> Reply:
        return NOT_FOUND

    server.handler = handler
    started = time.monotonic()
    with pytest.raises(errors.PlatformNotFoundError):
        await client.await_execution_result(
            "e1", timeout_seconds=budget, poll_interval_seconds=0.1, not_found_retry_seconds=tolerance
        )
    assert time.monotonic() - started >= 0.3


@pytest.mark.parametrize("tolerance", [0, -5])
async def test_not_found_without_tolerance(tolerance: float, server: RecordingServer, client: PlatformClient) -> None:
    server.answer(NOT_FOUND)
    with pytest.raises(errors.PlatformNotFoundError):
        await client.await_execution_result("e1", not_found_retry_seconds=tolerance)
    assert len(server.requests) == 1


async def test_another_failure_of_a_read_is_raised(server: RecordingServer, client: PlatformClient) -> None:
    server.answer(Reply(403, {"code": "forbidden"}))
    with pytest.raises(errors.PlatformPermissionError):
        await client.await_execution_result("e1")


async def test_a_read_is_repeated_when_the_connection_breaks(server: RecordingServer, client: PlatformClient) -> None:
    server.answer(HANG_UP, DONE)
    assert await client.await_execution_result("e1") == DONE.body


@pytest.mark.parametrize(
    "cancel", [Reply(200, {}), Reply(404, {}), Reply(500, {}), HANG_UP], ids=lambda r: str(r.status)
)
async def test_execute_cancels_when_the_callers_budget_is_spent(
    cancel: Reply, server: RecordingServer, client: PlatformClient
) -> None:
    async def handler(request: Recorded) -> Reply:
        if request.path.endswith("/cancel"):
            return cancel if not any(r.path.endswith("/cancel") for r in server.requests[:-1]) else Reply(200, {})
        return ACCEPTED if request.line.startswith("POST") else RUNNING

    server.handler = handler
    with pytest.raises(errors.PlatformExecutionError) as caught:
        await client.execute_code_block("cb", {}, {}, ring_id="r", timeout_seconds=0.3)
    assert str(caught.value) == "Execution e1 did not complete before the caller wait budget expired"
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert str(caught.value.__cause__) == "Execution e1 timed out after 0.3s"
    assert server.requests[-1].line == "POST /api/v1/orgs/o1/workspaces/w1/executions/e1/cancel HTTP/1.1"


async def test_a_callers_own_cancellation_passes(server: RecordingServer, client: PlatformClient) -> None:
    never = asyncio.Event()

    async def handler(_: Recorded) -> Reply:
        await never.wait()
        return DONE

    server.handler = handler
    waiting = asyncio.create_task(client.await_execution_result("e1"))
    while not server.requests:  # noqa: ASYNC110 - until the read is there.
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.slow
async def test_more_waiters_than_held_reads_take_turns(
    server: RecordingServer, make_client: Callable[..., PlatformClient]
) -> None:
    """With every turn taken by an execution that never ends, the others are still answered, and so is a cancel."""
    seen: dict[str, int] = {}
    held = 0
    most_held = 0

    async def handler(request: Recorded) -> Reply:
        nonlocal held, most_held
        if request.line.startswith("POST"):
            return Reply(200, {})
        execution_id = request.path.rpartition("/")[2]
        seen[execution_id] = seen.get(execution_id, 0) + 1
        if execution_id.startswith("short"):
            return DONE
        held += 1
        most_held = max(most_held, held)
        try:
            await asyncio.sleep(hold_of(request) / 10)  # In tenths, for the test's sake.
        finally:
            held -= 1
        return RUNNING

    server.handler = handler
    client = make_client()
    long = [
        asyncio.create_task(
            client.await_execution_result(f"long{number}", timeout_seconds=60, poll_interval_seconds=0.1)
        )
        for number in range(MAX_HELD_READS + 20)
    ]
    while held < MAX_HELD_READS:  # noqa: ASYNC110 - until all turns are taken.
        await asyncio.sleep(0.01)
    assert await client.cancel_execution("long0") == {}
    short = await asyncio.gather(*(client.await_execution_result(f"short{number}") for number in range(10)))
    assert [document["status"] for document in short] == ["completed"] * 10
    assert most_held <= MAX_HELD_READS
    for task in long:
        task.cancel()
    await asyncio.gather(*long, return_exceptions=True)
