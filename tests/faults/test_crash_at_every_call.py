"""A workflow is killed, in every way, at each of its calls: its result is that of one that nobody disturbed.

One workflow for each boundary runs on one platform, all at once; each stops at its own, then one kill hits them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flow_sdk import PlatformConnectionError
from flow_sdk.wire.status import Status
from tests.support.clients import RingClient
from tests.support.eventually import eventually
from tests.support.flow_program import Platform, descendants, running
from tests.support.workflow_records import Records, event_types, open_checkpoints, records_of, send

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

COMPONENTS = Path(__file__).with_name("crash_components.py")
BOUNDARIES = 21  # Before each of its 20 calls, and behind the last.
SLOTS = "32"  # All that stop at the same moment keep theirs.
OF_CHANCE = ("token", "equal", "of equal")
GO_ON = "go on"  # What it waits for where it does not hang.
STOP = "stop-"  # How the component names its process.


@contextlib.contextmanager
def platform(folder: Path, **environment: str) -> Iterator[Platform]:
    with running(folder, "--slots", SLOTS, **environment) as started:
        published = started.flow("publish", COMPONENTS)
        assert published.returncode == 0, published.stderr
        yield started


class Runs:
    """A workflow for each boundary, and one that nobody disturbed."""

    def __init__(self, ring: RingClient, how: str) -> None:
        self.ring = ring
        self.how = how
        self.ids: dict[int, str] = {}
        self.undisturbed: tuple[dict[str, Any], Records] | None = None

    async def start(self) -> None:
        """The undisturbed one first, to its end; then all others."""
        document = await self.ring.ended(await self._submit(0))
        assert document["status"] == Status.COMPLETED, document
        self.undisturbed = without_chance(document["output"]), await records_of(self.ring, document["execution_id"])
        assert document["output"]["boundaries"] == BOUNDARIES
        self.ids = {at: await self._submit(at) for at in range(1, BOUNDARIES + 1)}

    async def check(self, *, attempts: int | None = None) -> None:
        """All came to the same as the undisturbed one, with the same children and steps, each ended once."""
        documents = dict(zip(self.ids, await asyncio.gather(*map(self.ring.ended, self.ids.values())), strict=True))
        assert {at: (one["status"], one["error"]) for at, one in documents.items()} == dict.fromkeys(
            self.ids, (Status.COMPLETED, None)
        )
        assert self.undisturbed is not None
        output, records = self.undisturbed
        for at, document in documents.items():
            mine = await records_of(self.ring, document["execution_id"])
            assert (at, without_chance(document["output"])) == (at, output)
            assert (at, mine.ends) == (at, records.ends)
            assert (at, asked(mine)) == (at, asked(records))
            assert (at, mine.value("token")) == (at, document["output"]["token"])
            assert attempts in (None, mine.attempts), at
            assert "replay_mismatch" not in await event_types(self.ring, document["execution_id"]), at

    async def are_stopped(self) -> bool:
        opened = await asyncio.gather(*(open_checkpoints(self.ring, one) for one in self.ids.values()))
        return all(GO_ON in names for names in opened)

    async def let_go(self) -> None:
        async def send_until_it_is_heard(execution_id: str) -> None:
            async def answered() -> int:
                try:
                    return (await send(self.ring, execution_id, GO_ON, "now", key="once")).status_code
                except PlatformConnectionError:
                    return 0

            await eventually(answered, lambda status: status == 202, 30)

        await asyncio.gather(*map(send_until_it_is_heard, self.ids.values()))

    async def _submit(self, stop_at: int) -> str:
        arguments = {"stop_at": stop_at, "how": self.how}
        execution_id = await self.ring.submit_workflow("many-calls", arguments, 200)
        assert (await send(self.ring, execution_id, "news", {"from": "outside"})).status_code == 202
        return execution_id


def asked(records: Records) -> Counter[tuple[str, str, str]]:
    """Which checkpoints came to which end, without the word of chance in a name and what the test waits with."""
    found: Counter[tuple[str, str, str]] = Counter()
    for (kind, name, status), count in records.asked.items():
        if name != GO_ON:
            found[kind, name.partition(": ")[0], status] += count
    return found


def without_chance(output: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in output.items() if name not in OF_CHANCE}


def stopped_containers(started: Platform) -> dict[str, int]:
    """The processes of those that stopped, by the name that each gave to its own."""
    found = {}
    for process in descendants(started.child("bootstrap runner")):
        with contextlib.suppress(OSError):
            name = Path(f"/proc/{process}/comm").read_text().strip()
            if name.startswith(STOP):
                found[name] = process
    return found


async def all_hang(started: Platform) -> dict[str, int]:
    async def look() -> dict[str, int]:
        return stopped_containers(started)

    return await eventually(look, lambda found: len(found) == BOUNDARIES, 240)


async def test_each_container_is_killed_at_another_call(tmp_path: Path) -> None:
    with platform(tmp_path) as started:
        async with RingClient(started) as ring:
            runs = Runs(ring, "hang")
            await runs.start()
            for process in (await all_hang(started)).values():
                os.kill(process, signal.SIGKILL)
            await runs.check(attempts=2)


async def test_the_runner_is_killed_while_each_is_at_another_call(tmp_path: Path) -> None:
    with platform(tmp_path) as started:
        async with RingClient(started) as ring:
            runs = Runs(ring, "hang")
            await runs.start()
            await all_hang(started)
            os.kill(started.child("bootstrap runner"), signal.SIGKILL)
            await runs.check(attempts=2)


async def test_the_server_is_killed_while_each_is_at_another_call(tmp_path: Path) -> None:
    with platform(tmp_path, FLOW_SUSPEND_AFTER="3600") as started:
        async with RingClient(started) as ring:
            runs = Runs(ring, "wait")
            await runs.start()
            await eventually(runs.are_stopped, bool, 240)
            os.kill(started.child("bootstrap server"), signal.SIGKILL)
            await runs.let_go()
            await runs.check(attempts=1)


async def test_each_gives_its_container_back_at_another_call_and_the_runner_dies_while_they_go_on(
    tmp_path: Path,
) -> None:
    with platform(tmp_path, FLOW_SUSPEND_AFTER="0.1") as started:
        async with RingClient(started) as ring:
            runs = Runs(ring, "wait")
            await runs.start()
            await eventually(runs.are_stopped, bool, 240)
            for execution_id in runs.ids.values():
                await ring.reached(execution_id, Status.WAITING)
            await runs.let_go()
            os.kill(started.child("bootstrap runner"), signal.SIGKILL)
            await runs.check()
