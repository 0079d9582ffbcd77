"""The harness's socket, spoken to by hand: malformed, huge, out of order. One seed gives the same frames each time."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from flow_platform.hostile.answer import Answer, expect
from flow_platform.hostile.attempt import Attempt
from flow_platform.hostile.box import Box, Run
from flow_sdk.wire.harness import HEADER, Frame
from flow_sdk.wire.runner import Limits

SEED: Final = 20_261_122
_RUNS: Final = 24
_AT_ONCE: Final = 3
_DEADLINE_SECONDS: Final = 10.0
_OUTPUT_BYTES: Final = 1 << 20
_SPARE_BYTES: Final = 64 << 20
"""How much the process that reads the frames may grow: the largest result and event are far below."""

_SEND: Final = """
import os
def main(text, end):
    data = bytes.fromhex(text)
    try:
        while data:
            data = data[os.write(3, data):]
    except OSError:
        pass
    if end == "exit":
        os._exit(0)
    if end == "wait":
        import time
        time.sleep(60)
    return "returned"
"""
_DESCRIPTORS: Final = """
import array, os, socket
def main():
    channel = socket.socket(fileno=os.dup(3))
    rights = array.array("i", os.pipe())
    for _ in range(100):
        try:
            channel.sendmsg([b"\\x03\\x00\\x00\\x00\\x02{}"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        except OSError:
            channel.sendall(b"\\x03\\x00\\x00\\x00\\x02{}")
    return "sent"
"""


def _frame(kind: int, body: bytes) -> bytes:
    return HEADER.pack(kind, len(body)) + body


def _malformed(chance: random.Random) -> bytes:
    return chance.randbytes(chance.randrange(1, 200))


def _huge(chance: random.Random) -> bytes:
    kind = chance.choice((Frame.STARTED, Frame.EVENT, Frame.RESULT))
    return struct.pack(">BI", kind, chance.choice((1 << 31, (1 << 32) - 1, 40 << 20))) + bytes(chance.randrange(5000))


def _out_of_order(chance: random.Random) -> bytes:
    kinds = [chance.randrange(6) for _ in range(chance.randrange(1, 8))]
    return b"".join(_frame(kind, b"{}") for kind in kinds)


def _bodies(chance: random.Random) -> bytes:
    """Right frames around what is no JSON, or not what the frame says."""
    bodies = (
        b"",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"null",
        b'{"output":1',
        b"[" * 20_000,
        b'{"error":[],"output":{}}',
        b"NaN",
    )
    return _frame(chance.choice((Frame.EVENT, Frame.RESULT)), chance.choice(bodies))


_KINDS: Final[dict[str, Callable[[random.Random], bytes]]] = {
    "malformed frames": _malformed,
    "huge frames": _huge,
    "frames out of order": _out_of_order,
    "frames with other bodies": _bodies,
}


async def _fuzz(box: Box) -> list[Answer]:
    chance = random.Random(SEED)  # noqa: S311 - to be repeated, not to be guessed.
    names = list(_KINDS)
    scripts = [(names[number % len(names)], chance.choice(("exit", "wait", "return"))) for number in range(_RUNS)]
    data = [_KINDS[name](chance) for name, _ in scripts]
    before = _memory_bytes()
    room = asyncio.Semaphore(_AT_ONCE)

    async def send(number: int, deadline: float = _DEADLINE_SECONDS / 10) -> Run:
        async with room:
            given = {"text": data[number].hex(), "end": scripts[number][1]}
            # Frames that are right so far leave a container waiting: its deadline ends it.
            return await box.run(_SEND, given, limits=Limits(output_bytes=_OUTPUT_BYTES), deadline=deadline)

    runs = await asyncio.gather(*(send(number) for number in range(_RUNS)))
    for number, (name, _) in enumerate(scripts):
        if name == "huge frames" and runs[number].timed_out:  # A machine so busy that it was not sent, or a leak.
            runs[number] = await send(number, _DEADLINE_SECONDS)
            if runs[number].timed_out:
                break
    grown = _memory_bytes() - before
    found = [_judged(name, scripts, runs) for name in names]
    alive = await box.run("def main():\n    return 'alive'\n")
    return [
        *found,
        expect(47, "memory of the reader of frames", f"{grown >> 20} MiB more", refused=grown < _SPARE_BYTES),
        expect(47, "the next container after all of them", str(alive.output), refused=alive.output == "alive"),
    ]


def _judged(name: str, scripts: list[tuple[str, str]], runs: list[Run]) -> Answer:
    """None of them may be heard as more than it is; how they ended is counted."""
    mine = [run for (kind, _), run in zip(scripts, runs, strict=True) if kind == name]
    ended = [_ending(run) for run in mine]
    how = ", ".join(f"{word} {ended.count(word)}" for word in sorted(set(ended)))
    return expect(16, name, how, refused=bool(mine) and all(_is_contained(name, run) for run in mine))


def _ending(run: Run) -> str:
    if run.protocol_error:
        return "protocol error"
    return "deadline" if run.timed_out else "result" if run.result else "ended"


def _is_contained(name: str, run: Run) -> bool:
    if name == "huge frames":
        return bool(run.protocol_error)  # At its head: nobody waits for the rest, or makes room for it.
    if name == "malformed frames":
        return run.result is None or run.result["output"] == "returned"
    return run.frames.count(Frame.RESULT) <= 1 and run.frames.count(Frame.STARTED) <= 1


async def _pass_descriptors(box: Box) -> list[Answer]:
    """A descriptor that the reader took would be a way to fill its table."""
    await box.run("def main():\n    return 1\n")
    before = _links()
    await box.run(_DESCRIPTORS)
    taken = [link for link in _links() - before if link.startswith("pipe:")]
    how = "none taken" if len(taken) <= _POOL_PIPES else f"OK {len(taken)} taken"
    return [expect(13, "descriptors sent to the reader of frames", how, refused=len(taken) <= _POOL_PIPES)]


_POOL_PIPES: Final = 64  # Containers that wait in the pool meanwhile hold two each.


def _links() -> set[str]:
    found: set[str] = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add(str(entry.readlink()))
        except OSError:
            continue
    return found


def _memory_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


ATTEMPTS: Final = (
    Attempt("fuzz the harness's socket", (16, 47), _fuzz),
    Attempt("pass descriptors", (13,), _pass_descriptors),
)
