"""What each rung of the trust ladder promises. What it does not promise is not tried, and never counts as refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

from flow_platform.hostile.attempt import Attempt
from flow_platform.hostile.groups import ELSEWHERE, GROUPS
from flow_sdk.wire.isolation import Isolation

Place = TypeVar("Place")

_HELD_OUTSIDE: Final = frozenset({15, 16, 20, 21, 22, 35, 36, 40, 41, 46, 47, 48})
"""Held by engine, API and runner alone, wherever the code runs. Who can read the server's files and the memory of its
neighbours needs none of these ways: so tokens, secrets and other tenants are not among them."""

_PLAIN_PROCESS: Final = "not promised: a plain process can do all that the runner's user can"

NOT_PROMISED: Final[dict[Isolation, dict[int, str]]] = {
    isolation: {
        group: _PLAIN_PROCESS
        for group in GROUPS
        if isolation is Isolation.PROCESS and group not in _HELD_OUTSIDE and group not in ELSEWHERE
    }
    for isolation in Isolation
}
"""Per rung, by group: why not."""


AT_ONCE: Final = {Isolation.PROCESS: 1}
"""Attempts at the same time, where a few that measure the runner's own memory are not lost among many others."""


def promised(attempts: Sequence[Attempt[Place]], isolation: Isolation) -> list[Attempt[Place]]:
    """Those that may be tried there: all that they are about is promised."""
    left_out = NOT_PROMISED[isolation].keys()
    return [attempt for attempt in attempts if left_out.isdisjoint(attempt.groups)]
