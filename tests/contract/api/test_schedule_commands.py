"""`flow schedule` and `flow run --delay`, as a user types them, against a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta

import pytest
import pytest_asyncio

from tests.contract.api.hands import Tenant
from tests.contract.api.serving import serving
from tests.support.flow_program import Done, flow

pytestmark = pytest.mark.asyncio(loop_scope="module")

Flow = Callable[..., Awaitable[Done]]


@pytest_asyncio.fixture(loop_scope="module")
async def typed(tenant: Tenant) -> AsyncIterator[Flow]:
    """Runs a command, which must succeed unless said otherwise."""
    await tenant.publish()
    async with serving(tenant.platform.app) as url:

        async def run(*arguments: str, code: int = 0) -> Done:
            done = await asyncio.to_thread(flow, *arguments, FLOW_URL=url, FLOW_TOKEN=tenant.token())
            assert done.returncode == code, done.stderr
            return done

        yield run


async def test_a_schedule_from_its_making_to_its_end(typed: Flow) -> None:
    cron = ("--cron", "30 2 * * *", "--zone", "Europe/Berlin", "--input", '{"a": 1}', "--overlap", "queue")
    made = await typed("schedule", "create", "code-blocks/echo", *cron, "--catch-up", "1h30m", "--json")
    schedule = json.loads(made.stdout)
    schedule_id = schedule["id"]
    assert (schedule["overlap"], schedule["catch_up_seconds"], schedule["input_data"]) == ("queue", 5400, {"a": 1})
    assert len(schedule["next_firings"]) == 5

    paused = await typed("schedule", "pause", schedule_id)
    assert paused.stdout == f"{schedule_id}\n"
    assert paused.stderr == "paused 30 2 * * * Europe/Berlin\n"
    listed = (await typed("schedule", "list")).stdout.splitlines()
    assert [line.split("  ")[0] for line in listed] == ["ID", schedule_id]
    assert "30 2 * * * Europe/Berlin  paused" in listed[1]
    resumed = json.loads((await typed("schedule", "resume", schedule_id, "--json")).stdout)
    assert (resumed["paused"], resumed["next_firing_at"]) == (False, schedule["next_firing_at"])

    execution_id = (await typed("schedule", "trigger", schedule_id)).stdout.strip()
    assert json.loads((await typed("show", execution_id, "--json")).stdout)["status"] == "queued"
    shown = (await typed("schedule", "show", schedule_id)).stdout
    assert shown.count("fires at") == 5
    assert f"started  {execution_id}  queued" in shown
    assert json.loads((await typed("schedule", "list", "--json")).stdout)[0]["last_firing"]["status"] == "started"

    assert (await typed("schedule", "delete", schedule_id)).stderr == f"deleted {schedule_id}\n"
    assert (await typed("schedule", "list", "--json")).stdout == "[]\n"


async def test_every_is_an_interval(typed: Flow) -> None:
    made = await typed("schedule", "create", "code-blocks/echo", "--every", "15m", "--paused")
    assert made.stderr == "made every 15m\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("list", "x"), "expected no id"),
        (("pause",), "expected an id"),
        (("create",), "expected KIND/SLUG"),
        (("pause", "x", "--cron", "* * * * *"), "are for create"),
        (("create", "code-blocks/echo", "--cron", "99 * * * *"), "'99'"),
        (("create", "code-blocks/echo"), "either --cron or --every"),
        (("create", "code-blocks/echo", "--every", "soon"), "'soon'"),
        (("create", "code-blocks/absent", "--every", "1h"), "'absent' not found"),
        (("show", "absent"), "'absent' not found"),
    ],
)
async def test_mistakes_are_told(typed: Flow, arguments: tuple[str, ...], words: str) -> None:
    done = await typed("schedule", *arguments, code=1)
    assert words in done.stderr
    assert done.stdout == ""


async def test_a_run_starts_later(typed: Flow, tenant: Tenant) -> None:
    execution_id = (await typed("run", "code-blocks/echo", "--delay", "10m", "--detach")).stdout.strip()
    document = json.loads((await typed("show", execution_id, "--json")).stdout)
    until = datetime.fromisoformat(document["waiting_on"]["until"])
    assert document["waiting_on"]["reason"] == "start"
    assert timedelta(minutes=9) < until - tenant.platform.now <= timedelta(minutes=10)
    assert "'10 min'" in (await typed("run", "code-blocks/echo", "--delay", "10 min", code=1)).stderr
