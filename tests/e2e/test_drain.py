"""Stopping with work at hand: `flow up` hands it back, and a runner's name belongs to one process."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.flow_program import FLOW, Platform, clean_environment, eventually, flow_process, running

pytestmark = pytest.mark.slow

SOURCE = """
import time

from flow_sdk import code_block, workflow

@code_block
def quick() -> str:
    return "quick"

@code_block
def endless() -> None:
    time.sleep(600)

@workflow
async def both() -> list:
    return [await quick.call(), await endless.call()]
"""


# The workflow keeps its container while it waits, however long that takes here: so it has one to hand back.
PATIENT = {"FLOW_DRAIN_SECONDS": "0.5", "FLOW_SUSPEND_AFTER": "600"}


def test_ctrl_c_hands_back_what_runs_and_the_next_start_goes_on(tmp_path: Path) -> None:
    with running(tmp_path, **PATIENT) as platform:
        source = tmp_path / "work.py"
        source.write_text(SOURCE)
        assert platform.flow("publish", source).returncode == 0
        execution_id = platform.flow("run", "workflows/both", "--detach").stdout.strip()
        eventually(lambda: children(platform, execution_id).get("endless", {}).get("status") == "running")
        before = children(platform, execution_id)
        assert before["quick"]["status"] == "completed"
        assert platform.stop() == 0
    platform.ready_file.unlink(missing_ok=True)
    with running(tmp_path, **PATIENT) as again:
        eventually(lambda: children(again, execution_id)["endless"]["attempt"] == 2)
        eventually(lambda: again.output_of("show", execution_id, "--json")["attempt"] == 2)
        after = children(again, execution_id)
        assert {slug: child["execution_id"] for slug, child in after.items()} == {
            slug: child["execution_id"] for slug, child in before.items()
        }, "nothing was started twice"
        assert after["quick"]["attempt"] == 1
        for one in (execution_id, after["endless"]["execution_id"]):
            assert again.output_of("show", one, "--json")["errors"] == [], "a stop is no error and no loss"
        assert again.flow("cancel", execution_id).returncode == 0


def children(platform: Platform, execution_id: str) -> dict[str, dict[str, Any]]:
    tree = platform.output_of("show", execution_id, "--tree", "--json")
    return {child["execution"]["component"]["slug"]: child["execution"] for child in tree["children"]}


def test_a_second_runner_of_the_same_name_is_refused_with_a_hint(tmp_path: Path) -> None:
    with running(tmp_path, "--runners", "0") as platform:
        options = ("--nats", platform.wait_ready()["nats_url"], "--runner-id", "twin")
        with runner(tmp_path, *options) as first:
            second = flow_process("runner", *options)
            assert second.returncode == 1
            assert "error: runner 'twin' is at work already" in second.stderr
            assert "hint: stop that one, or give this one a name of its own: --runner-id NAME" in second.stderr
            assert first.poll() is None, "the first one works on"
            os.kill(first.pid, signal.SIGKILL)
            first.wait()
            with runner(tmp_path, *options):
                pass


@contextmanager
def runner(folder: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A `flow runner` that asks for work."""
    said = folder / "runner.log"
    with said.open("wb") as log:
        process = subprocess.Popen([FLOW, "runner", *options], env=clean_environment(), stdout=log, stderr=log)
    try:
        eventually(lambda: "runner twin asks for work" in said.read_text() or process.poll() is not None)
        assert process.poll() is None, said.read_text()
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(60)
