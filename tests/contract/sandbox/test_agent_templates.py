"""A template of agents has run one before any container is made of it, and holds nothing of that but what it loaded."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from flow_platform.sandbox.base import ContainerSpec, Sandbox
from flow_sdk.wire.agent import MODULES
from tests.support.component_runs import run_component

pytestmark = pytest.mark.asyncio(loop_scope="package")

SPEC = ContainerSpec(
    tenant="agents",
    environment_digest="installed",
    environment_path=Path(sysconfig.get_paths()["purelib"]),
    modules=MODULES,
)


async def test_what_a_run_loads_is_loaded_before_the_container_is_made(sandbox: Sandbox) -> None:
    code = """
        import sys
        from pydantic_ai.messages import ModelMessagesTypeAdapter
        def main():
            lazy = ["openai.resources.chat.completions.completions", "anyio._backends._asyncio", "genai_prices.data"]
            return [[name for name in lazy if name not in sys.modules], ModelMessagesTypeAdapter.pydantic_complete]
    """
    run = await run_component(sandbox, code, spec=SPEC)
    assert run.output == [[], True]


async def test_the_rehearsal_leaves_nothing_behind(sandbox: Sandbox) -> None:
    code = """
        import os, stat, threading
        import flow_sdk.calling
        from flow_sdk import activity
        from flow_sdk.harness import idle
        def _is_socket(number):
            try:
                return stat.S_ISSOCK(os.fstat(int(number)).st_mode)
            except OSError:
                return False
        def main():
            return {
                "environment": sorted({"AUTH_TOKEN", "PLATFORM_API_URL", "ORG_ID", "RING_ID"} & set(os.environ)),
                "threads": threading.active_count(),
                "clients": len(flow_sdk.calling._SHARED),
                "waits": len(activity.CURRENT.waits) + activity.CURRENT.requests + activity.CURRENT.asking,
                "kept": len(idle._left),
                "hooks": [activity.CURRENT.on_wait, activity.CURRENT.on_answer, activity.CURRENT.in_turn],
                "sockets": sum(_is_socket(number) for number in os.listdir("/proc/self/fd")),
            }
    """
    run = await run_component(sandbox, code, spec=SPEC)
    assert run.output == {
        "environment": [],
        "threads": 1,
        "clients": 0,
        "waits": 0,
        "kept": 0,
        "hooks": [None, None, None],
        "sockets": 1,
    }


async def test_two_containers_of_it_share_no_randomness(sandbox: Sandbox) -> None:
    code = """
        import os, random, secrets, ssl, tempfile, uuid
        def main():
            return [random.random(), ssl.RAND_bytes(8).hex(), str(uuid.uuid4()), secrets.token_hex(8),
                    next(tempfile._get_candidate_names())]
    """
    drawn = [(await run_component(sandbox, code, spec=SPEC)).output for _ in range(2)]
    for source in zip(*drawn, strict=True):
        assert len(set(source)) == len(drawn), source
