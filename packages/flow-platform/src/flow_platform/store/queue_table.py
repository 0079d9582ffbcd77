"""The port of the queue, a part of the executions'.

*Ready* is what is queued and waits for nothing but its turn. A *lane* is what is ready of one component in one ring
with the same isolation and the same `limit_keys`: all in it are counted by the same limits and run on the same
runners, so if the first may not start, none of it may.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from flow_platform.domain.execution import Execution
from flow_sdk.wire.isolation import DEFAULT, Isolation


@dataclass(frozen=True)
class Survey:
    """What the queue looks like, in one statement.

    Attributes:
        first_workspace, last_workspace: Of those with ready executions, by id; None when nothing is ready.
        available_at: When the next of the delayed becomes available; may be past.
        has_limits: Whether any workspace limits what starts.
    """

    first_workspace: str | None
    last_workspace: str | None
    available_at: datetime | None
    has_limits: bool


@dataclass(frozen=True)
class Head:
    """A ready execution at the head of its lane."""

    id: str
    lane: str
    created_at: datetime
    priority: int


@dataclass(frozen=True)
class RunningCount:
    """How many executions of one kind hold a lease."""

    workspace_id: str
    component_id: str
    ring_id: str | None
    limit_keys: tuple[str, ...]
    count: int


class Lane(NamedTuple):
    """What a lane's name says."""

    component_id: str
    ring_id: str | None
    isolation: str
    limit_keys: tuple[str, ...]


def parse_lane(lane: str) -> Lane:
    component_id, _, rest = lane.partition("@")
    ring_id, _, rest = rest.partition(":")
    isolation, bracket, keys = rest.partition("[")
    return Lane(component_id, ring_id or None, isolation, tuple(json.loads(bracket + keys)) if bracket else ())


class QueueTable(Protocol):
    def survey(self) -> Survey: ...

    def mature(self, now: datetime, limit: int) -> int:
        """Makes the delayed ones ready that are available by now, at most so many; returns how many."""
        ...

    def acquire(self, now: datetime, limit: int, isolations: Sequence[Isolation] = (DEFAULT,)) -> list[Execution]:
        """Ready executions of these isolations whose deadline is ahead. First who waited longest, where each level of
        priority counts as one more minute. Locked until the end of the transaction: no other process gets them too.
        """
        ...

    def lock_ready(self, execution_ids: Iterable[str], now: datetime) -> list[Execution]:
        """Those of the executions that still are ready and not another process's, locked, in the given order."""
        ...

    def waiting_workspaces(self, after: str, limit: int) -> dict[str, int | None]:
        """Workspaces with ready executions, by id, behind a given one; with the revision of their policies, if these
        limit what starts.
        """
        ...

    def lanes(self, workspace_id: str, after: str, limit: int) -> list[str]:
        """Lanes with ready executions, in order, behind a given one."""
        ...

    def heads(self, workspace_id: str, lanes: Mapping[str, int], now: datetime) -> list[Head]:
        """The first ones of each lane, at most as many as is said for it."""
        ...

    def count_ready(self, workspace_id: str, component_id: str, ring_id: str, at_most: int) -> int:
        """How many of a component are ready in a ring; counts no further than `at_most`."""
        ...

    def running_counts(self) -> list[RunningCount]:
        """All that holds a lease, of all workspaces: as many as there are slots, and parents that lent theirs."""
        ...
