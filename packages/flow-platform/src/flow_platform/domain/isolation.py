"""Which isolation an execution gets: the stronger of what its component says and what its ring demands.

Plain processes are for development: only the ring `dev` lets them in.
"""

from __future__ import annotations

from typing import Final

from flow_platform.domain import errors
from flow_platform.domain.component import Component, Definition
from flow_platform.domain.release import Ring
from flow_sdk.wire.isolation import DEFAULT, Isolation

DEVELOPMENT: Final = "dev"
"""The only ring in which plain processes may run."""


def effective(definition: Definition, ring: Ring) -> Isolation:
    """What an execution of that definition runs in."""
    return max(definition.isolation or DEFAULT, ring.minimum_isolation)


def lowest(ring_name: str) -> Isolation:
    """What a ring of that name can demand at the least, and does unless told otherwise."""
    return Isolation.PROCESS if ring_name == DEVELOPMENT else DEFAULT


def check_minimum(ring_name: str, minimum: Isolation) -> Isolation:
    """Returns what a ring demands.

    Raises:
        InvalidInput: It is less than what a ring of that name must demand.
    """
    least = lowest(ring_name)
    if minimum < least:
        allowed = ", ".join(repr(rung.value) for rung in Isolation if rung >= least)
        expected = f"one of {allowed}: only ring {DEVELOPMENT!r} lets plain processes in"
        raise errors.InvalidInput(
            f"minimum_isolation {minimum.value!r} of ring {ring_name!r} is not valid: expected {expected}",
            details=[{"field": "minimum_isolation", "message": f"expected {expected}"}],
        )
    return minimum


def require_strong_enough(component: Component, definition: Definition, ring: Ring) -> None:
    """Checks that a version may be brought into a ring.

    Raises:
        Conflict: `isolation_too_weak`: it says that it is a plain process.
    """
    word = definition.isolation
    if word is not None and word < lowest(ring.name):
        raise errors.Conflict(
            f"{component.kind.value} {component.slug!r} says isolation {word.value!r}, "
            f"which is for ring {DEVELOPMENT!r} only: expected a stronger one for ring {ring.name!r}",
            code="isolation_too_weak",
            hint=f"leave isolation={word.value!r} out, and publish it again",
        )
