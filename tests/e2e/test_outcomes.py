"""Every terminal status, reached with real containers, and what the document then says."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from flow_sdk.wire.status import Status
from tests.support.clients import RingClient
from tests.support.eventually import eventually as polled
from tests.support.flow_program import Platform, are_gone, eventually, running

pytestmark = pytest.mark.slow

COMPONENTS = Path(__file__).with_name("outcome_components.py")


@pytest.fixture(scope="module", autouse=True)
def published(platform: Platform) -> None:
    done = platform.flow("publish", COMPONENTS)
    assert done.returncode == 0, done.stderr


async def processes_of(platform: Platform, execution_ids: list[str]) -> list[int]:
    """All in the containers of these executions, each of which must announce its network namespace."""

    async def announced() -> list[str]:
        lines = [line for one in execution_ids for line in platform.flow("events", one, "--json").stdout.splitlines()]
        events = [json.loads(line) for line in lines]
        return [event["event_data"]["net"] for event in events if event["event_type"] == "namespace"]

    namespaces = await polled(announced, lambda found: len(found) == len(execution_ids))
    found = []
    for process in platform.processes():
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{process}/ns/net") in namespaces:  # noqa: PTH115
                found.append(process)
    return found


def shown(platform: Platform, execution_id: str) -> dict[str, Any]:
    document: dict[str, Any] = platform.output_of("show", execution_id, "--json")
    return document


async def test_completed(platform: Platform) -> None:
    async with RingClient(platform) as ring:
        document = await ring.run("double", {"number": 21})
    assert (document["status"], document["output"], document["attempt"]) == ("completed", 42, 1)
    assert (document["error"], document["errors"]) == (None, [])
    assert document["metrics"]["run_ms"] >= 0
    assert document["created_at"] <= document["started_at"] <= document["finished_at"] <= document["deadline_at"]


def test_failed_with_what_the_component_raised(platform: Platform) -> None:
    done = platform.flow("run", "code-blocks/raises", "--input", '{"reason": "an empty shelf"}')
    assert done.returncode == 1
    execution_id = next(word for word in done.stderr.split() if len(word) == 36 and word.count("-") == 4)
    document = shown(platform, execution_id)
    assert (document["status"], document["attempt"]) == ("failed", 1)
    error = document["error"]
    assert (error["code"], error["type"], error["message"]) == (
        "component_error",
        "LookupError",
        "nothing here: an empty shelf",
    )
    assert "in raises" in error["traceback"]


async def test_failed_for_input_of_the_wrong_type(platform: Platform) -> None:
    async with RingClient(platform) as ring:
        document = await ring.run("double", {"number": "many"})
    assert (document["status"], document["error"]["code"]) == ("failed", "invalid_input")
    message = document["error"]["message"]
    assert "number" in message
    assert "'many'" in message
    assert "valid integer" in message
    assert document["error"]["details"][0]["field"] == "number"


async def test_timeout_of_one_that_runs_ends_its_processes(platform: Platform) -> None:
    async with RingClient(platform) as ring:
        execution_id = await ring.submit("stubborn", {}, timeout_seconds=6.0)  # Enough to begin on a busy machine.
        family = await processes_of(platform, [execution_id])
        document = await ring.ended(execution_id)
    assert len(family) == 2, "with its child"
    assert document["status"] == "timeout"
    assert document["error"]["code"] == "timeout"
    assert "6 s" in document["error"]["message"]
    eventually(lambda: are_gone(family))


async def test_timeout_of_one_that_nobody_ran(platform: Platform, tmp_path: Path) -> None:
    """Publishing needs a runner, so this platform without one begins with a copy of the other's database."""
    (tmp_path / "data").mkdir(mode=0o700)
    with (
        contextlib.closing(sqlite3.connect(platform.data / "flow.db")) as original,
        contextlib.closing(sqlite3.connect(tmp_path / "data" / "flow.db")) as copy,
    ):
        original.backup(copy)
    with running(tmp_path, "--runners", "0") as alone:
        async with RingClient(alone) as ring:
            execution_id = await ring.submit("double", {"number": 1}, timeout_seconds=5.0)
            waiting = await ring.status(execution_id)
            document = await ring.ended(execution_id)
    assert waiting["status"] == "queued"
    assert waiting["waiting_on"]["reason"] == "runner"
    assert waiting["waiting_on"]["until"] == waiting["deadline_at"]
    assert (document["status"], document["attempt"], document["started_at"]) == ("timeout", 0, None)


async def test_cancelled_with_all_that_it_started(platform: Platform) -> None:
    async with RingClient(platform) as ring:
        root = await ring.submit_workflow("stubborn-family", {"members": 2})

        async def children() -> list[dict[str, Any]]:
            tree = platform.output_of("show", root, "--tree", "--json")
            return [child["execution"] for child in tree["children"]]

        async def all_children() -> list[str]:
            return [child["execution_id"] for child in await children()]

        ids = await polled(all_children, lambda found: len(found) == 2)
        family = await processes_of(platform, [root, *ids])
        assert len(family) == 5, "the workflow, and two children with a child process each"
        await ring.client.cancel_execution(root)
        eventually(lambda: are_gone(family))
        document = await ring.ended(root)
        assert (document["status"], document["error"]["code"]) == ("cancelled", "cancelled")
        ended = await polled(children, lambda found: all(Status(one["status"]).is_terminal for one in found))
        assert [one["status"] for one in ended] == ["cancelled", "cancelled"]
        again = await ring.client.cancel_execution(root)
        assert again["status"] == "cancelled"


@pytest.mark.parametrize(
    ("slug", "said"),
    [("exits-at-once", "exit code 7"), ("breaks-memory", "killed by SIGSEGV"), ("kills-itself", "exit code 137")],
)
async def test_dead_letter_after_three_lost_containers(platform: Platform, slug: str, said: str) -> None:
    async with RingClient(platform) as ring:
        document = await ring.run(slug, {})
    assert (document["status"], document["attempt"]) == ("dead_letter", 3)
    assert [error["attempt"] for error in document["errors"]] == [1, 2, 3]
    assert {error["code"] for error in document["errors"]} == {"process_crashed"}
    assert all(said in error["message"] for error in document["errors"])


async def test_dead_letter_after_the_policy_is_used_up(platform: Platform) -> None:
    async with RingClient(platform) as ring:
        saved = await ring.run("flaky-by-policy", {"fails": 1})
        document = await ring.run("flaky-by-policy", {"fails": 2})
    assert (saved["status"], saved["output"], saved["attempt"]) == ("completed", "attempt 2", 2)
    assert [error["message"] for error in saved["errors"]] == ["attempt 1 found nobody"]
    assert (document["status"], document["attempt"]) == ("dead_letter", 2)
    assert [error["type"] for error in document["errors"]] == ["ConnectionError", "ConnectionError"]


async def test_a_crashed_container_is_tried_again(platform: Platform) -> None:
    async with RingClient(platform) as ring:
        document = await ring.run("crashes-first", {})
    assert (document["status"], document["output"], document["attempt"]) == ("completed", "survived", 2)
    assert [error["code"] for error in document["errors"]] == ["process_crashed"]


async def test_a_container_killed_from_outside_is_tried_again(platform: Platform) -> None:
    async with RingClient(platform) as ring:
        execution_id = await ring.submit("killed-first", {})

        for process in await processes_of(platform, [execution_id]):
            os.kill(process, signal.SIGKILL)
        document = await ring.ended(execution_id)
    assert (document["status"], document["output"], document["attempt"]) == ("completed", "survived", 2)
    assert [error["attempt"] for error in document["errors"]] == [1]


async def test_out_of_memory_names_the_limit_and_the_peak(platform: Platform) -> None:
    async with RingClient(platform) as ring:
        document = await ring.run("hungry", {})
    assert (document["status"], document["attempt"]) == ("failed", 1)
    error = document["error"]
    assert error["code"] == "out_of_memory"
    assert "64.0 MiB" in error["message"]
    assert document["metrics"]["max_rss_bytes"] > 32 << 20
