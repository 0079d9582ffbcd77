"""One container against host and kernel."""

from __future__ import annotations

import platform
import signal
from typing import Final

from flow_platform.hostile.answer import Answer, answers, expect
from flow_platform.hostile.attempt import Attempt
from flow_platform.hostile.box import OTHER_TENANT, Box

_FOREIGN_CALLS: Final = {
    "x32": "ctypes.CDLL(None).syscall(ctypes.c_long(0x40000000 | 39))",
    "int 0x80": "page = mmap.mmap(-1, 4096, prot=7)\n    page.write(bytes.fromhex('b814000000cd80c3'))\n"
    "    ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()",
}
_LENGTH: Final = "def main(secret):\n    return len(secret)\n"


async def _host(box: Box) -> list[Answer]:
    run = await box.try_inside("host", {"canary_path": str(box.canaries.path)})
    return answers(run.output)


async def _kernel(box: Box) -> list[Answer]:
    return answers((await box.try_inside("kernel")).output)


async def _privileges(box: Box) -> list[Answer]:
    return answers((await box.try_inside("privileges")).output)


async def _network(box: Box) -> list[Answer]:
    given = {"host_ports": {"the host's service": box.canaries.port}, "abstract_name": box.canaries.abstract_name}
    return answers((await box.try_inside("network", given)).output)


async def _memory(box: Box) -> list[Answer]:
    """After executions that held secrets: of the same component, and of another tenant."""
    await box.run(_LENGTH, {"secret": box.canaries.execution + "!"})
    await box.run(_LENGTH, {"secret": box.canaries.tenant + "!"}, spec=OTHER_TENANT)
    return answers((await box.try_inside("memory", {"needles": box.canaries.needles()})).output)


async def _foreign_calls(box: Box) -> list[Answer]:
    """System calls of another instruction set, whose numbers a filter could take for others."""
    if platform.machine() != "x86_64":
        return [expect(4, "calls of another instruction set", refused=True, how="this machine has none")]
    found: list[Answer] = []
    for name, code in _FOREIGN_CALLS.items():
        run = await box.run(f"import ctypes, mmap\ndef main():\n    {code}\n    return 1\n")
        killed = run.result is None and run.ended.signal == signal.SIGSYS
        found.append(expect(4, f"calls by {name}", refused=killed, how="killed" if killed else "OK it went on"))
    return found


ATTEMPTS: Final = (
    Attempt("files, processes and engines of the host", (1, 2, 5, 6), _host),
    Attempt("interfaces of the kernel", (3, 4, 5, 8, 33), _kernel),
    Attempt("privileges and priorities", (1, 3, 7, 14), _privileges),
    Attempt("network of the host", (2, 24, 25, 26, 27), _network),
    Attempt("secrets in memory", (1,), _memory),
    Attempt("another instruction set", (4,), _foreign_calls),
)
