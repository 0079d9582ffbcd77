"""Two containers: one after the other, and side by side."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Final

from flow_platform.hostile.answer import Answer, answer, answers, expect
from flow_platform.hostile.attempt import Attempt
from flow_platform.hostile.box import OTHER_TENANT, Box, Run
from flow_platform.hostile.source import source_of, tools

_CLONES: Final = 4
_NEAR: Final = 64
"""Numbers that grow by less than this from container to container would count the containers."""

_READY_SECONDS: Final = 120.0

_LISTEN: Final = """
import os, socket, time
from flow_sdk.harness.channel import emit_event
def main():
    port = socket.create_server(("0.0.0.0", 47112))
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind("\\0neighbour")
    abstract.listen()
    with open("/dev/shm/neighbour", "w") as file:
        file.write("secret")
    for listener in (port, abstract):
        listener.settimeout(0.05)
    emit_event("ready")
    while True:
        for name, listener in (("port", port), ("abstract socket", abstract)):
            try:
                listener.accept()
                emit_event("heard", name)
            except TimeoutError:
                pass
"""
_REACH: Final = """
def connect(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(1)
        connection.connect(address)
        return "connected"

def main():
    import glob
    port = attempt(connect, socket.AF_INET, ("127.0.0.1", 47112))
    broadcast = attempt(connect, socket.AF_INET, ("0.0.0.0", 47112))
    return {
        "29": {"port of a neighbour": port, "port of a neighbour, any address": broadcast},
        "5": {"shared memory of a neighbour": attempt(open, "/dev/shm/neighbour")},
        "33": {"abstract socket of a neighbour": attempt(connect, socket.AF_UNIX, "\\0neighbour"),
               "processes of a neighbour": attempt(os.stat, "/proc/2"),
               "files of neighbours": "OK" if glob.glob("/tmp/*") else "none"},
    }
"""


async def _one_after_the_other(box: Box) -> list[Answer]:
    left = await box.try_inside("leave")
    if not left.output:
        raise RuntimeError("nothing could be left, so nothing was shown")
    found = (await box.try_inside("find")).output
    return answers(found)


async def _side_by_side(box: Box) -> list[Answer]:
    """One listens while the other looks for it; both of one tenant, which is the harder case."""
    events: asyncio.Queue[bytes] = asyncio.Queue()
    listening = asyncio.create_task(box.run(_LISTEN, on_event=events.put_nowait, deadline=2 * _READY_SECONDS))
    try:
        async with asyncio.timeout(_READY_SECONDS):
            await events.get()
        reached = await box.run(tools() + "import socket\n" + _REACH)
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    how = f"OK {events.qsize()} visitors" if events.qsize() else "nobody"
    return [*answers(reached.output), answer(29, "who came to a listening neighbour", how)]


async def _clones(box: Box) -> list[Answer]:
    """Containers of one template, one after another, and one of another tenant's."""
    runs = [await box.try_inside("draw") for _ in range(_CLONES)]
    other = await box.try_inside("draw", spec=OTHER_TENANT)
    drawn = [run.output for run in runs]
    found: list[Answer] = []
    for source in drawn[0]:
        values = [one[source] for one in drawn]
        if source in ("hash seed", "address of the C library"):
            same = other.output[source] == values[0]
            how = "OK the same" if same else "each tenant its own"
            found.append(answer(9, f"{source} of another tenant", how))
        elif source == "user":
            found.append(_counter("user ids", [int(value) for value in values]))
        elif source == "cgroup":
            found.append(_cgroups(values))
        elif not source.endswith("namespace"):
            how = "each its own" if len(set(values)) == len(values) else f"OK the same twice: {values}"
            found.append(answer(9, source, how))
    return found + await _at_the_same_time(box)


async def _at_the_same_time(box: Box) -> list[Answer]:
    """Numbers of namespaces are used again, so only those of containers that live together must differ."""
    wait = "\n_draw = main\ndef main():\n    import time\n    drawn = _draw()\n    time.sleep(0.5)\n    return drawn\n"
    runs: list[Run] = await asyncio.gather(*(box.run(source_of("draw") + wait) for _ in range(2)))
    first, second = (run.output for run in runs)
    names = [name for name in first if name.endswith("namespace")]
    found = [answer(5, name, "each its own" if first[name] != second[name] else "OK shared") for name in names]
    own, how = first["user"] != second["user"], f"{first['user']} and {second['user']}"
    users = expect(3, "user id of a neighbour", refused=own, how=how, weak="own user ids" in box.weak)
    return [*found, users]


def _counter(name: str, values: list[int]) -> Answer:
    """Whether numbers grow by a little from one to the next: then they count the containers of everybody."""
    counts = all(0 < later - earlier < _NEAR for earlier, later in pairwise(values))
    how = "OK they count containers" if counts else "not in order"
    return answer(33, f"count the executions of others by {name}", how)


def _cgroups(values: list[str]) -> Answer:
    """Paths of cgroups hold a name per container: see that it has no counter in it."""
    names = [max(value.splitlines(), key=len).rpartition("/")[2] for value in values]
    numbers = [int("".join(filter(str.isdigit, name)) or 0) for name in names]
    return _counter("cgroups", numbers)


ATTEMPTS: Final = (
    Attempt("leave something and find it", (7, 8), _one_after_the_other),
    Attempt("reach a neighbour", (5, 29, 33), _side_by_side),
    Attempt("the same memory twice", (3, 5, 9, 33), _clones),
)
