"""Runs a component that does nothing, in a template, before any container is forked from it.

Whatever Python and OpenSSL set up at their first use (random generators, codecs, specialised bytecode) is then part of
the memory that all forks share, instead of being made, page by page, in each of them. It halves what a fork costs.
"""

from __future__ import annotations

import linecache
import ssl
import sys
from typing import Final

from flow_sdk.harness import failure, invoke
from flow_sdk.wire.status import Kind

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
    """Leaves no trace but warm caches: no module, no event loop, no thread."""
    ssl.RAND_bytes(1)  # Not for the byte: the generator is made now. Each fork reseeds it.
    for _ in range(_ROUNDS):
        for code, kind in ((_SYNCHRONOUS, Kind.CODE_BLOCK), (_ASYNCHRONOUS, Kind.WORKFLOW)):
            start = {"code": code, "entry_point": "main", "kind": kind.value}
            invoke.call(start, {"number": 1}, _nothing)
    sys.modules.pop("component", None)
    linecache.cache.pop(failure.COMPONENT_FILE, None)


def _nothing() -> None:
    pass
