"""Workflows that wait give their containers back and go on where they were; over both channels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from flow_platform.cli.bench_process import memory_mib
from flow_sdk.wire.status import Status
from tests.support.clients import RingClient
from tests.support.eventually import eventually
from tests.support.flow_program import Platform, descendants, running
from tests.support.workflow_records import event_types, records_of, send

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

COMPONENTS = Path(__file__).with_name("waiting_components.py")
SUSPEND_AFTER = "0.2"
SLEEPERS = 100


@pytest.fixture(scope="module", params=["socket", "nats"])
def waiting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform whose workflows are soon tired of waiting."""
    folder = tmp_path_factory.mktemp(request.param)
    with running(folder, "--channel", request.param, "--slots", "16", FLOW_SUSPEND_AFTER=SUSPEND_AFTER) as started:
        published = started.flow("publish", COMPONENTS)
        assert published.returncode == 0, published.stderr
        yield started


@pytest.fixture
async def ring(waiting: Platform) -> AsyncIterator[RingClient]:
    async with RingClient(waiting) as client:
        yield client


def completed(document: dict[str, Any]) -> Any:
    assert document["status"] == Status.COMPLETED, document["error"]
    return document["output"]


async def test_a_sleep(ring: RingClient) -> None:
    execution_id = await ring.submit_workflow("sleeper-flow", {"seconds": 4.0})
    waits = await ring.reached(execution_id, Status.WAITING)
    assert waits["waiting_on"]["reason"] == "timer"
    output = completed(await ring.ended(execution_id))
    assert output["attempt"] == 2
    assert output["slept"] >= 4.0


async def test_an_event_that_comes_while_it_waits_and_one_that_came_before(ring: RingClient) -> None:
    waits, late = [await ring.submit_workflow("event-flow", {"before": before}) for before in ("", "go")]
    assert (await send(ring, late, "address", {"city": "Basel"})).json()["delivered"] is False
    found = await ring.reached(waits, Status.WAITING)
    assert (found["waiting_on"]["reason"], "address" in found["waiting_on"]["message"]) == ("event", True)
    refused = await send(ring, waits, "address", "no object")
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_input")
    assert (await send(ring, waits, "address", {"city": "Bern"}, key="k")).json()["delivered"] is True
    assert (await send(ring, waits, "address", {"city": "Bern"}, key="k")).status_code == 202
    assert completed(await ring.ended(waits)) == {"city": "Bern", "attempt": 2}
    assert (await send(ring, late, "go", {})).status_code == 202
    assert completed(await ring.ended(late))["city"] == "Basel"
    assert (await send(ring, waits, "address", {"city": "Chur"})).json()["code"] == "execution_ended"


async def test_an_approval_is_answered_by_whom_it_names_and_by_nobody_else(waiting: Platform, ring: RingClient) -> None:
    execution_id = await ring.submit_workflow("approval-flow", {"approvers": ["carla", "runner"]})
    found = await ring.reached(execution_id, Status.WAITING)
    assert (found["waiting_on"]["reason"], "40 boxes" in found["waiting_on"]["message"]) == ("approval", True)

    async def answer(subject: str, role: str, approved: bool) -> httpx.Response:
        token = waiting.output_of("token", "--role", role, "--subject", subject, "--json")["token"]
        async with RingClient(waiting) as other:
            other.client.auth_token = token
            return await send(other, execution_id, "ship it", {"approved": approved, "comment": f"says {subject}"})

    refused = await answer("boris", "builder", True)
    assert (refused.status_code, refused.json()["code"]) == (403, "not_an_approver")
    assert (await answer("viola", "viewer", True)).status_code == 403
    assert (await answer("carla", "builder", False)).status_code == 202
    output = completed(await ring.ended(execution_id))
    assert output == {"approved": False, "comment": "says carla", "by": "carla"}
    assert "approval" in await event_types(ring, execution_id)


async def test_what_does_not_come_in_time(ring: RingClient) -> None:
    document = await ring.run_workflow("expiring-flow", {})
    assert completed(document) == "event 'never' did not come within 3 s"
    assert document["attempt"] == 2


async def test_a_child_that_takes_long_and_all_levels_above_it(ring: RingClient) -> None:
    ids = [await ring.submit_workflow("child-flow", {"seconds": 4.0})]
    ids.append(await ring.submit_workflow("nested-flow", {"depth": 2, "seconds": 5.0}))
    for execution_id in ids:
        await ring.reached(execution_id, Status.WAITING)

    async def below() -> list[str]:
        return [one["status"] for one in (await records_of(ring, ids[1])).below]

    await eventually(below, lambda found: found == ["waiting"] * 2)
    assert completed(await ring.ended(ids[0])) == "rested"
    assert completed(await ring.ended(ids[1])) == {"depth": 2, "below": {"depth": 1, "below": {"depth": 0}}}
    records = await records_of(ring, ids[1])
    assert records.ends == {("nested-flow", "completed"): 2}
    assert (records.attempts, [one["attempt"] for one in records.below]) == (2, [2, 2])


async def test_map_says_of_each_input_what_became_of_it(ring: RingClient) -> None:
    output = completed(await ring.run_workflow("map-flow", {"count": 6}))
    assert output["outputs"] == [0, None, 1, None, 2, None]
    assert (output["failed"], output["why"]) == ([1, 3, 5], "1 is odd")


async def test_what_ends_first_comes_first_also_when_the_code_runs_again(ring: RingClient) -> None:
    execution_id = await ring.submit_workflow("first-flow", {}, 90)

    async def seen(count: int) -> None:
        """Waits until it has gone on so often, and waits again."""

        async def rested() -> int:
            return (await records_of(ring, execution_id)).ends["rests", "completed"]

        await eventually(rested, lambda found: found == count)
        await ring.reached(execution_id, Status.WAITING)

    await seen(1)
    [child] = [one for one in (await records_of(ring, execution_id)).below if one["component"]["slug"] == "told"]
    assert (await send(ring, child["execution_id"], "second", {})).status_code == 202
    await seen(2)
    assert (await send(ring, execution_id, "third", {})).status_code == 202
    document = await ring.ended(execution_id)
    assert completed(document) == ["after first", "after second", "after third"]
    assert document["attempt"] >= 3, "it gave its container back in between"
    assert (await records_of(ring, execution_id)).ends == {("rests", "completed"): 3, ("told", "completed"): 1}
    assert "replay_mismatch" not in await event_types(ring, execution_id)


async def test_clients_transforms_and_waits_that_the_code_itself_gives_up(ring: RingClient) -> None:
    document = await ring.run_workflow("mixed-flow", {})
    assert completed(document) == ["own", {"n": 8}, {"n": 10}]
    assert document["attempt"] > 1
    records = await records_of(ring, document["execution_id"])
    assert len(records.below) == 4
    assert "replay_mismatch" not in await event_types(ring, document["execution_id"])


async def test_a_workflow_that_is_no_coroutine_keeps_its_container(ring: RingClient) -> None:
    assert completed(await ring.run_workflow("plain-flow", {"seconds": 1.0})) == 1


async def test_its_own_retry_keeps_steps_and_timers_and_reads_the_next_event(ring: RingClient) -> None:
    execution_id = await ring.submit_workflow("retried-flow", {})
    await send(ring, execution_id, "go", False)
    document = await ring.ended(execution_id)
    assert (document["status"], document["error"]["message"]) == (Status.DEAD_LETTER, "try again")
    assert (await records_of(ring, execution_id)).asked == {
        ("step", "once", "done"): 1,
        ("timer", "sleep", "done"): 1,
        ("step", "twice", "done"): 1,
        ("event", "go", "done"): 1,
    }


async def test_many_sleep_at_once_without_containers_and_are_cancelled(waiting: Platform, ring: RingClient) -> None:
    if waiting.folder.name.startswith("nats"):
        pytest.skip("the same over both channels, and long")
    runner = waiting.child("bootstrap runner")
    before, _ = memory_mib(runner)
    submits = [ring.submit_workflow("sleeper-flow", {"seconds": 3000}, 4000) for _ in range(SLEEPERS)]
    ids = await asyncio.gather(*submits)
    for execution_id in ids:
        await ring.reached(execution_id, Status.WAITING)

    async def containers() -> int:
        return len(descendants(runner))

    await eventually(containers, lambda count: count < 40)
    assert memory_mib(runner)[0] - before < 150, "of the pool, not of those that sleep"
    short = await ring.submit_workflow("sleeper-flow", {"seconds": 3000}, 1.5)
    assert (await ring.ended(short))["status"] == Status.TIMEOUT
    await asyncio.gather(*(ring.client.cancel_execution(execution_id) for execution_id in ids))
    ends = await asyncio.gather(*map(ring.ended, ids))
    assert {document["status"] for document in ends} == {Status.CANCELLED}
