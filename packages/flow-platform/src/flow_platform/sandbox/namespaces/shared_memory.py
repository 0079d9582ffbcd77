"""Lays out a template's memory so that forking it is cheap. Runs inside the jail.

A fork copies the page table, and then each page that it writes. Writing cannot be avoided, since every use of a Python
object counts a reference in it, but where can be: few large pages are mapped faster than many small ones, and what a
fork allocates shall lie together, instead of in the holes of pages all over the template. Nothing here is needed for
a template to work, so a kernel without a call, or another allocator, only makes forks slower.
"""

from __future__ import annotations

import ctypes
import itertools
from typing import Any, Final

_libc = ctypes.CDLL(None)
_filling: list[Any] = []

_ARENA_BITS: Final = 20
_POOL_BITS: Final = 14
_LARGE_PAGE: Final = 2 << 20
_COLLAPSE: Final = 25  # MADV_COLLAPSE, since kernel 6.1.

_ARENAS: Final = 20  # What a template with the SDK needs; those not needed are given back.
_SPACER_BYTES: Final = 400
_SPACERS_PER_ARENA: Final = 2300

_BLOCK_BYTES: Final = 16  # Python's allocator has one class of pools for each multiple of it,
_LARGEST_BLOCK: Final = 512  # up to here;
_BYTES_HEADER: Final = 33
_POOLS_FILLED: Final = 8  # per class; a template after its rehearsal has holes for up to 4 of them.


def reserve() -> list[bytes]:
    """Makes Python's arenas now, side by side: made one by one they lie between libraries, too small for large pages.

    Returns:
        What holds them open. Drop it when the imports are done.
    """
    spacers = [bytes(_SPACER_BYTES) for _ in range(_ARENAS * _SPACERS_PER_ARENA)]
    return list({id(spacer) >> _ARENA_BITS: spacer for spacer in spacers}.values())


def fill_holes() -> None:
    """Allocates blocks of each size until they come from a fresh pool, all side by side; about 1 MB in all."""
    for size in range(_BLOCK_BYTES, _LARGEST_BLOCK + 1, _BLOCK_BYTES):
        _filling.extend(_fill(size))


def collapse() -> None:
    """Has the kernel put anonymous memory into large pages where it is aligned for them."""
    with open("/proc/self/maps") as maps:  # noqa: PTH123 - no pathlib here: a template has only what containers need.
        lines = maps.read().splitlines()
    for line in lines:
        span, mode, *rest = line.split()
        if mode != "rw-p" or rest[3:] not in ([], ["[heap]"]):
            continue
        first, end = (int(address, 16) for address in span.split("-"))
        start = -(-first // _LARGE_PAGE) * _LARGE_PAGE
        for page in range(start, end - _LARGE_PAGE + 1, _LARGE_PAGE):
            _libc.madvise(ctypes.c_void_p(page), ctypes.c_size_t(_LARGE_PAGE), _COLLAPSE)


def _fill(size: int) -> list[Any]:
    per_pool = (1 << _POOL_BITS) // size
    filling: list[Any] = []
    for _ in range(_POOLS_FILLED):
        blocks = [_block(size) for _ in itertools.repeat(None, per_pool)]
        if len({id(block) >> _POOL_BITS for block in blocks}) <= 2:  # The end of one, most of the next.
            break
        filling += blocks
    return filling


def _block(size: int) -> Any:
    """An object of just this size, of a type that keeps no free list of its own."""
    if size == _BLOCK_BYTES:
        return object()
    if size == 2 * _BLOCK_BYTES:
        return complex(0, 1)
    return bytes(size - _BYTES_HEADER)
