"""Components that ask for a kernel of their own, on a whole platform: beside others, and calling each other."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

from tests.support.flow_program import Platform, running
from tests.support.runsc import needs_runsc

pytestmark = [pytest.mark.slow, needs_runsc]

SOURCE = """
import os, platform
from flow_sdk import code_block, emit_event, workflow

@code_block(isolation="gvisor")
def hard(word: str) -> dict:
    emit_event("kernel", {"word": word})
    print("said from inside")
    return {"word": word.upper(), "kernel": platform.release()}

@code_block
def ordinary() -> str:
    return platform.release()

@code_block(isolation="gvisor")
def crashes() -> None:
    os._exit(3)

@workflow(isolation="gvisor")
async def both(word: str) -> list:
    return [await hard.call(word=word), await ordinary.call(), platform.release()]
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("gvisor")
    (folder / "hard.py").write_text(SOURCE)
    with running(folder, FLOW_ISOLATIONS="namespaces,gvisor", FLOW_GVISOR_POOL_SIZE="1") as started:
        published = started.flow("publish", folder / "hard.py")
        assert published.returncode == 0, published.stderr
        yield started


def test_a_workflow_with_a_kernel_of_its_own_calls_what_has_one_and_what_has_none(platform: Platform) -> None:
    hard, ordinary, own = platform.output_of("run", "workflows/both", "--input", '{"word": "hello"}')
    assert hard["word"] == "HELLO"
    assert ordinary == os.uname().release
    assert hard["kernel"] == own
    assert own != ordinary


def test_logs_events_and_isolation_are_in_the_record(platform: Platform) -> None:
    done = platform.flow("run", "code-blocks/hard", "--input", '{"word": "a"}', "--follow")
    assert done.returncode == 0, done.stderr
    assert "said from inside" in done.stdout + done.stderr
    execution_id = re.search(r"[0-9a-f]{8}-[0-9a-f-]{27}", done.stderr)
    assert execution_id, done.stderr
    assert platform.output_of("show", execution_id[0], "--json")["isolation"] == "gvisor"
    assert '"kernel"' in platform.flow("events", execution_id[0], "--json").stdout


def test_a_component_that_dies_is_told_by_its_exit_code(platform: Platform) -> None:
    done = platform.flow("run", "code-blocks/crashes")
    assert done.returncode != 0
    assert "exit code 3" in done.stdout + done.stderr
