"""Runs a component that does nothing, in a template, before any container is forked from it.

Whatever Python and OpenSSL set up at their first use (random generators, codecs, specialised bytecode) is then part of
the memory that all forks share, instead of being made, page by page, in each of them. It halves what a fork costs.
"""

from __future__ import annotations

import json
import linecache
import os
import signal
import socket
import ssl
import sys
from typing import Final

from flow_sdk.harness import channel, failure, main
from flow_sdk.wire.harness import HEADER, Frame, Mode
from flow_sdk.wire.status import Kind

_VARIABLE: Final = "FLOW_REHEARSAL"
_ROUNDS: Final = 8  # CPython specialises a function's bytecode in its first calls.
_SYNCHRONOUS: Final = """
from flow_sdk import code_block

@code_block
def main(number: int = 0, text: str = "") -> dict:
    return {"number": number, "text": text}
"""
_ASYNCHRONOUS: Final = """
from flow_sdk import workflow

@workflow
async def main(number: int) -> list[int]:
    return [number]
"""


def rehearse() -> None:
    """Leaves no trace but warm caches: no module, no variable, no signal handler, no event loop, no thread.

    Standard output and error stay as the harness sets them, which each fork would do again.

    Raises:
        RuntimeError: The harness, or what agents run with, does not work here.
    """
    ssl.RAND_bytes(1)  # Not for the byte: the generator is made now. Each fork reseeds it.
    ours, theirs = socket.socketpair()
    with ours, theirs:
        harness = channel.Channel(ours)
        for _ in range(_ROUNDS):
            for code, kind in ((_SYNCHRONOUS, Kind.CODE_BLOCK), (_ASYNCHRONOUS, Kind.WORKFLOW)):
                _run(harness, theirs, {"code": code, "entry_point": "main", "kind": kind.value})
    agents = sys.modules.get("flow_sdk.agents.rehearsal")  # In templates of agents.
    if agents is not None:
        agents.rehearse()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    del os.environ[_VARIABLE]
    sys.modules.pop("component", None)
    linecache.cache.pop(failure.COMPONENT_FILE, None)


def _run(harness: channel.Channel, runner: socket.socket, component: dict[str, str]) -> None:
    """One attempt as `main.run` makes it, but for the end of the process."""
    given = {"mode": Mode.RUN.value, "env": {_VARIABLE: "1"}, "input": {"input_data": {"number": 1}}}
    frame = json.dumps(component | given).encode()
    runner.sendall(HEADER.pack(Frame.START, len(frame)) + frame)
    start = harness.receive_start()
    if start is None:
        raise RuntimeError("the rehearsal's socket closed")
    main.prepare(start)
    body = main.run_over_socket(start, harness)
    harness.send(Frame.RESULT, body)
    runner.recv(1 << 16)
    if b'"error":null' not in body:
        raise RuntimeError(f"the harness failed its rehearsal: {body.decode()}")
