"""Every terminal status, reached with real containers, and what the document then says."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from flow_sdk.wire.status import Status

from tests.support.clients import RingClient
from tests.support.eventually import eventually
from tests.support.flow_program import Platform, network_namespaces, running

pytestmark = pytest.mark.slow

COMPONENTS = Path(__file__).with_name("outcome_components.py")
CANCEL_SECONDS = 2.0


@pytest.fixture(scope="module", autouse=True)
def published(platform: Platform) -> None:
    done = platform.flow("publish", COMPONENTS)
    assert done.returncode == 0, done.stderr


def namespaces_of(platform: Platform, execution_ids: list[str]) -> list[str]:
    """Of the containers that announced theirs."""
    lines = [
        line for one in execution_ids for line in platform.flow("events", one, "--json").stdout.splitlines() if line
    ]
    events = [json.loads(line) for line in lines]
    return [event["event_data"]["net"] for event in events if event["event_type"] == "namespace"]


def processes_in(namespace: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if str((entry / "ns" / "net").readlink()) == namespace:
                    found.append(int(entry.name))
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
        execution_id = await ring.submit("stubborn", {}, timeout_seconds=1.0)
        document = await ring.ended(execution_id)
    assert document["status"] == "timeout"
    assert document["error"]["code"] == "timeout"
    assert "1 s" in document["error"]["message"]
    (namespace,) = namespaces_of(platform, [execution_id])

    async def namespaces() -> set[str]:
        return network_namespaces()

    await eventually(namespaces, lambda present: namespace not in present)


async def test_timeout_of_one_that_nobody_ran(tmp_path: Path) -> None:
    with running(tmp_path) as platform:
        assert platform.flow("publish", COMPONENTS).returncode == 0
    with running(tmp_path, "--runners", "0") as platform:
        async with RingClient(platform) as ring:
            execution_id = await ring.submit("double", {"number": 1}, timeout_seconds=1.0)
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

        async def announced() -> list[str]:
            ids = [root, *(child["execution_id"] for child in await children())]
            return namespaces_of(platform, ids)

        async def left() -> set[str]:
            return network_namespaces().intersection(namespaces)

        namespaces = await eventually(announced, lambda found: len(found) == 3, 30)
        assert len(await left()) == 3
        began = time.monotonic()
        await ring.client.cancel_execution(root)
        await eventually(left, lambda present: not present)
        took = time.monotonic() - began
        document = await ring.ended(root)
        assert (document["status"], document["error"]["code"]) == ("cancelled", "cancelled")
        ended = await eventually(children, lambda found: all(Status(one["status"]).is_terminal for one in found))
        assert [one["status"] for one in ended] == ["cancelled", "cancelled"]
        again = await ring.client.cancel_execution(root)
        assert again["status"] == "cancelled"
    assert took < CANCEL_SECONDS


@pytest.mark.parametrize(("slug", "said"), [("exits-at-once", "exit code 7"), ("breaks-memory", "killed by SIGSEGV")])
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

        async def announced() -> list[str]:
            return namespaces_of(platform, [execution_id])

        (namespace,) = await eventually(announced, bool, 30)
        for process in processes_in(namespace):
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
