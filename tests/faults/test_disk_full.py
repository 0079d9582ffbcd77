"""The disk of the data folder is full: submits are refused, nothing is lost, and room alone mends everything."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from flow_sdk.errors import PlatformServerError
from tests.faults.conftest import COMPONENTS
from tests.support.clients import RingClient
from tests.support.eventually import eventually
from tests.support.flow_program import Platform, are_gone, running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk"),
]

DISK_MIB = 64
SLOTS = 4
FILLING = "x" * 200_000  # Of one submit: the first that does not fit is refused.


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    """With its data on a disk of its own."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=0700", "flow-test", data], check=True)
    try:
        with running(tmp_path, "--slots", str(SLOTS)) as started:
            published = started.flow("publish", COMPONENTS)
            assert published.returncode == 0, published.stderr
            yield started
    finally:
        subprocess.run(["umount", "--lazy", data], check=True)  # Its last user may still be ending.


def fill(platform: Platform) -> Path:
    """Takes every last byte of the disk."""
    ballast = platform.data / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return ballast


async def test_a_full_disk_refuses_submits_and_loses_nothing(platform: Platform) -> None:
    async with RingClient(platform) as ring:
        client = ring.client
        await ring.run("square", {"number": 0})  # From here on containers wait, and the next executions take those.
        accepted = [await ring.submit("square", {"number": number, "seconds": 1.5}, 90) for number in range(8)]
        await ring.reached(accepted[0], "running")
        before = platform.processes()
        ballast = fill(platform)
        # Those of a slow machine may have ended by now.
        running = [one for one in accepted if (await ring.status(one))["status"] == "running"]

        body = {"input_parameters": {"number": 1, "padding": FILLING}, "ring_id": ring.ring_id}
        path = f"/api/v1/orgs/{client.org_id}/workspaces/{client.workspace_id}/code-blocks/square/executions"
        late: list[str] = []  # What still found room.
        headers = {"Authorization": f"Bearer {client.auth_token}"}
        async with httpx.AsyncClient(base_url=client.base_url, headers=headers, trust_env=False, timeout=60) as http:

            async def submit() -> httpx.Response:
                answer = await http.post(path, json=body)
                if answer.status_code == 202:
                    late.append(answer.json()["execution_id"])
                return answer

            refused = await eventually(submit, lambda answer: answer.status_code != 202)
            assert (refused.status_code, refused.json()["code"]) == (507, "storage_full"), refused.text
            assert "retry-after" in refused.headers
            many = await asyncio.gather(*(submit() for _ in range(20)))
            assert {answer.status_code for answer in many} == {507}
            with pytest.raises(PlatformServerError) as by_client:
                await ring.submit("square", {"number": 1, "padding": FILLING})
            assert (by_client.value.status_code, by_client.value.code) == (507, "storage_full")

            # Reads go on, and the containers end while nothing can be recorded.
            assert (await ring.status(accepted[0]))["status"] in {"running", "completed"}
            assert (await http.get("/healthz")).status_code == 200

            async def ended() -> int:
                return sum(are_gone([process]) for process in before)

            await eventually(ended, lambda count: count >= len(running))

        ballast.unlink()
        documents = [await ring.ended(execution_id) for execution_id in accepted]
        assert [document["status"] for document in documents] == ["completed"] * 8
        assert [document["output"] for document in documents] == [number * number for number in range(8)]
        assert {(await ring.ended(execution_id))["status"] for execution_id in late} <= {"completed"}
        later = await ring.run("square", {"number": 12})
        assert (later["status"], later["output"]) == ("completed", 144)
        large = await ring.run("square", {"number": 2, "padding": FILLING})
        assert large["status"] == "completed"
    assert platform.process.poll() is None
    assert "starting it again" not in platform.said
