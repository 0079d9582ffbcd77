"""Waiting, in a test that runs no event loop, for what happens in its own time."""

from __future__ import annotations

import time
from collections.abc import Callable

_PAUSE_SECONDS = 0.01


def eventually(assertion: Callable[[], object], timeout: float) -> None:
    """Calls the assertion until it holds; at the deadline its last failure is raised."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            assertion()
        except AssertionError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return
