"""What a component tries against the host, the kernel and its neighbours: all of it must be refused."""

from __future__ import annotations

import platform
from typing import Any

import pytest

from flow_platform.sandbox.base import Sandbox
from tests.support.component_runs import run_component
from tests.support.hostile_attempts import ATTEMPTS, PRELUDE

pytestmark = [
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the attempts name system calls by x86-64 numbers"),
]


def changed(text: str) -> str:
    return bytes(byte ^ 1 for byte in text.encode()).hex()


@pytest.mark.parametrize("name", ATTEMPTS)
async def test_is_refused(
    sandbox: Sandbox, name: str, environment_canary: str, host_port: int, abstract_name: str, canary_path: str
) -> None:
    other = environment_canary[::-1]
    await run_component(sandbox, "def main(secret):\n    return len(secret)\n", {"secret": other + "!"})
    given: dict[str, Any] = {
        "canary_path": canary_path,
        "host_port": host_port,
        "abstract_name": abstract_name,
        "needles": [changed(environment_canary), changed(other)],
    }
    run = await run_component(sandbox, PRELUDE + ATTEMPTS[name], given)
    answers: dict[str, str] = run.output
    assert answers
    assert {attempt: answer for attempt, answer in answers.items() if answer.startswith("OK")} == {}


@pytest.mark.parametrize(
    "code",
    [
        "ctypes.CDLL(None).syscall(ctypes.c_long(0x40000000 | 39))",
        "page = mmap.mmap(-1, 4096, prot=7)\n    page.write(bytes.fromhex('b814000000cd80c3'))\n"
        "    ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()",
    ],
    ids=["x32", "int 0x80"],
)
async def test_calls_of_another_instruction_set_kill(sandbox: Sandbox, code: str) -> None:
    run = await run_component(sandbox, f"import ctypes, mmap\ndef main():\n    {code}\n")
    assert (run.result, run.ended.signal) == (None, 31)
