"""Schedules of workspaces, as the API offers them: made, changed while they run, paused, triggered, deleted.

Whatever was due before a change was asked for is fired first, as it was; the change counts from then on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic_core import to_json

from flow_platform.domain import errors
from flow_platform.domain.clock import Clock, Entropy, new_id, system_entropy
from flow_platform.domain.execution import Execution
from flow_platform.domain.firing import Firing, FiringStatus
from flow_platform.domain.principal import Action, Principal
from flow_platform.domain.release import Ring
from flow_platform.domain.schedule import (
    DEFAULT_CATCH_UP,
    Overlap,
    Schedule,
    Skip,
    check_schedule,
    decide,
    next_due_at,
)
from flow_platform.engine.accept import MAX_TIMEOUT_SECONDS
from flow_platform.engine.firings import accept_run, record_skip, record_trigger
from flow_platform.engine.grants import Grant, Grants
from flow_platform.engine.releases import check_workspace, find_component, find_ring, require_not_execution
from flow_platform.engine.scheduler import SCHEDULES, Scheduler
from flow_platform.engine.stages import Stages
from flow_platform.engine.validation import invalid
from flow_platform.engine.wakeups import Wakeups
from flow_platform.store.base import Store, Transaction
from flow_platform.store.schedule_table import FiringPage, SchedulePage, StoredSchedule
from flow_sdk.wire.status import Kind

MAX_SCHEDULES: Final = 1_000  # Of one workspace.
MAX_SCHEDULE_BYTES: Final = 1 << 20  # Of input and config together, as JSON: read at each firing.
NEXT_FIRINGS: Final = 5
MAX_KEY_LENGTH: Final = 255
_PLAN: Final = frozenset(
    {"cron", "interval", "time_zone", "input_data", "overlap", "catch_up", "is_paused", "starts_at", "ends_at"}
)
_TIMES: Final = frozenset({"cron", "interval", "time_zone", "starts_at", "ends_at"})


@dataclass(frozen=True)
class NewSchedule:
    """A schedule to be made.

    Attributes:
        component: Id, or a slug that only one kind has; with `kind`, a slug of that kind.
        ring: Id or name; None: the ring of lowest order.
    """

    component: str
    kind: Kind | None = None
    ring: str | None = None
    name: str = ""
    cron: str | None = None
    interval: timedelta | None = None
    time_zone: str = "UTC"
    input_data: Any = None
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    timeout_seconds: float | None = None
    overlap: Overlap = Overlap.SKIP
    catch_up: timedelta = DEFAULT_CATCH_UP
    is_paused: bool = False
    starts_at: datetime | None = None
    ends_at: datetime | None = None


class Schedules:
    """The schedules of all workspaces."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        wakeups: Wakeups,
        stages: Stages,
        grants: Grants,
        scheduler: Scheduler,
        entropy: Entropy = system_entropy,
    ) -> None:
        self._store = store
        self._clock = clock
        self._wakeups = wakeups
        self._stages = stages
        self._grants = grants
        self._scheduler = scheduler
        self._entropy = entropy

    async def create(self, principal: Principal, org_id: str, workspace_id: str, new: NewSchedule) -> StoredSchedule:
        """Makes a schedule. It fires from now on.

        Raises:
            NotFound: The workspace has no such component or ring.
            InvalidInput: Cron, zone or another value is not valid.
            Conflict: `too_many_schedules`.
        """
        require_not_execution(principal, Action.SUBMIT, org_id, workspace_id)
        now = self._clock.now()
        schedule_id = new_id(now, self._entropy)

        def operation(tx: Transaction) -> StoredSchedule:
            check_workspace(tx, org_id, workspace_id)
            if (count := tx.schedules.count(org_id, workspace_id)) >= MAX_SCHEDULES:
                raise errors.Conflict(
                    f"the workspace has {count} schedules: expected at most {MAX_SCHEDULES}", code="too_many_schedules"
                )
            made = _made(tx, org_id, workspace_id, new, schedule_id, principal.subject, now)
            tx.schedules.insert(made)
            return made

        made = await self._store.write(operation)
        self._wakeups.notify([SCHEDULES])
        return made

    async def list(
        self,
        principal: Principal,
        org_id: str,
        workspace_id: str,
        component_id: str | None,
        execution_id: str | None,
        cursor: str | None,
        limit: int,
    ) -> SchedulePage:
        """A page, newest first, each with its last firing.

        Args:
            component_id: Or slug, or kind and slug.
            execution_id: Only the schedule that started it.

        Raises:
            NotFound: The workspace has no such component.
        """
        require_not_execution(principal, Action.READ, org_id, workspace_id)

        def operation(tx: Transaction) -> SchedulePage:
            check_workspace(tx, org_id, workspace_id)
            component = find_component(tx, org_id, workspace_id, component_id).id if component_id else None
            return tx.schedules.list(org_id, workspace_id, component, execution_id, cursor, limit)

        return await self._store.read(operation)

    async def get(self, principal: Principal, org_id: str, workspace_id: str, schedule_id: str) -> StoredSchedule:
        """Raises NotFound when there is none in this workspace."""
        require_not_execution(principal, Action.READ, org_id, workspace_id)
        return await self._store.read(lambda tx: _with_last_firing(tx, _find(tx, org_id, workspace_id, schedule_id)))

    async def firings(
        self, principal: Principal, org_id: str, workspace_id: str, schedule_id: str, cursor: str | None, limit: int
    ) -> FiringPage:
        """A page of its history, newest first."""
        require_not_execution(principal, Action.READ, org_id, workspace_id)

        def operation(tx: Transaction) -> FiringPage:
            return tx.schedules.list_firings(_find(tx, org_id, workspace_id, schedule_id).id, cursor, limit)

        return await self._store.read(operation)

    async def change(
        self, principal: Principal, org_id: str, workspace_id: str, schedule_id: str, changes: Mapping[str, Any]
    ) -> StoredSchedule:
        """Changes fields of a schedule; those of `NewSchedule` but `component` and `kind`.

        New times count from now on: nothing is made up for by them. Executions that run go on. A run that waits is
        left out when the schedule is paused or its overlap is not `queue` any more.

        Raises:
            NotFound: There is no such schedule, or ring.
            InvalidInput: See `create`.
        """
        require_not_execution(principal, Action.SUBMIT, org_id, workspace_id)
        await self.get(principal, org_id, workspace_id, schedule_id)
        await self._scheduler.fire(schedule_id)
        now = self._clock.now()

        def operation(tx: Transaction) -> StoredSchedule:
            before = _find(tx, org_id, workspace_id, schedule_id, for_update=True)
            after = _changed(tx, before, changes, now)
            tx.schedules.update(after)
            return _with_last_firing(tx, after)

        changed = await self._store.write(operation)
        self._wakeups.notify([SCHEDULES])
        return changed

    async def delete(self, principal: Principal, org_id: str, workspace_id: str, schedule_id: str) -> None:
        """Deletes a schedule with its history. Its executions stay, and run on."""
        require_not_execution(principal, Action.SUBMIT, org_id, workspace_id)

        def operation(tx: Transaction) -> None:
            tx.schedules.delete(_find(tx, org_id, workspace_id, schedule_id, for_update=True).id)

        await self._store.write(operation)
        self._wakeups.notify([SCHEDULES])

    async def trigger(
        self, principal: Principal, org_id: str, workspace_id: str, schedule_id: str, key: str | None
    ) -> Firing:
        """Starts one run now, whether the schedule is paused or another run goes on.

        Args:
            key: A client's idempotency key: the same one returns the first firing.

        Raises:
            Conflict: `not_deployed`, or whatever else refuses a submit.
        """
        require_not_execution(principal, Action.SUBMIT, org_id, workspace_id)
        if key is not None and not 0 < len(key) <= MAX_KEY_LENGTH:
            raise invalid("Idempotency-Key", key, f"1 to {MAX_KEY_LENGTH} characters")
        started, now = self._stages.now(), self._clock.now()
        name = f"trigger:{key or new_id(now, self._entropy)}"

        def operation(tx: Transaction) -> tuple[Firing, Execution | None, list[Grant]]:
            schedule = _find(tx, org_id, workspace_id, schedule_id, for_update=True)
            if earlier := tx.schedules.find_firing(schedule.id, name):
                return earlier, None, []
            execution = accept_run(tx, schedule, now=now, entropy=self._entropy)
            firing = record_trigger(tx, schedule, execution, name, now)
            return firing, execution, self._grants.grant_waiting(tx)

        firing, execution, granted = await self._store.write(operation)
        if execution is not None:
            self._scheduler.accepted([execution], started, granted)
        return firing


def next_firings(schedule: StoredSchedule, now: datetime) -> list[datetime]:
    """The next instants at which it is due; none while it is paused, or its time zone is not known any more."""
    found: list[datetime] = []
    try:
        at = next_due_at(schedule.plan, max(now, schedule.last_fired_at or now))
        while at is not None and len(found) < NEXT_FIRINGS:
            found.append(at)
            at = schedule.plan.next_after(at)
    except errors.InvalidInput:
        return []  # Its firings say so; looking at it must work all the same.
    return found


def _find(
    tx: Transaction, org_id: str, workspace_id: str, schedule_id: str, *, for_update: bool = False
) -> StoredSchedule:
    found = tx.schedules.find(org_id, workspace_id, schedule_id, for_update=for_update)
    if found is None:
        raise errors.NotFound(f"schedule {schedule_id!r} not found")
    return found


def _with_last_firing(tx: Transaction, schedule: StoredSchedule) -> StoredSchedule:
    newest = tx.schedules.list_firings(schedule.id, None, 1).items
    return dataclasses.replace(schedule, last_firing=newest[0]) if newest else schedule


def _made(
    tx: Transaction, org_id: str, workspace_id: str, new: NewSchedule, schedule_id: str, by: str, now: datetime
) -> StoredSchedule:
    if new.kind is None:
        component = find_component(tx, org_id, workspace_id, new.component)
    else:
        found = tx.catalog.find_component(org_id, workspace_id, new.kind, new.component)
        if found is None:
            raise errors.NotFound(f"{new.kind.value} {new.component!r} not found")
        component = found
    plan = Schedule(
        id=schedule_id,
        component_id=component.id,
        ring_id=_ring(tx, org_id, workspace_id, new.ring).id,
        created_at=now,
        cron=new.cron,
        interval=new.interval,
        time_zone=new.time_zone,
        input_data={} if new.input_data is None and component.kind is Kind.CODE_BLOCK else new.input_data,
        overlap=new.overlap,
        catch_up=new.catch_up,
        is_paused=new.is_paused,
        starts_at=new.starts_at,
        ends_at=new.ends_at,
    )
    made = StoredSchedule(
        plan=plan,
        org_id=org_id,
        workspace_id=workspace_id,
        name=new.name,
        kind=component.kind,
        component_slug=component.slug,
        created_by=by,
        updated_at=now,
        config=new.config,
        timeout_seconds=new.timeout_seconds,
        due_at=next_due_at(check_schedule(plan), None),
    )
    return _check(made)


def _changed(tx: Transaction, before: StoredSchedule, changes: Mapping[str, Any], now: datetime) -> StoredSchedule:
    plan = dataclasses.replace(before.plan, **{name: changes[name] for name in changes if name in _PLAN})
    if "ring" in changes:
        ring = _ring(tx, before.org_id, before.workspace_id, changes["ring"])
        plan = dataclasses.replace(plan, ring_id=ring.id)
    own = {name: changes[name] for name in changes if name in ("name", "config", "timeout_seconds")}
    after = _check(dataclasses.replace(before, plan=check_schedule(plan), updated_at=now, **own))
    last_fired_at = after.last_fired_at
    if before.plan.is_paused:
        # What was due meanwhile is left out now, in one piece, and never made up for.
        for action in decide(before.plan, last_fired_at, (), now):
            if isinstance(action, Skip):
                after = record_skip(tx, after, action, now)
        last_fired_at = max(last_fired_at or now, now)
    elif any(getattr(plan, name) != getattr(before.plan, name) for name in _TIMES):
        last_fired_at = max(last_fired_at or now, now)
    if plan.is_paused or plan.overlap is not Overlap.QUEUE:
        _drop_waiting(tx, after, "paused" if plan.is_paused else "overlap", now)
    return dataclasses.replace(after, last_fired_at=last_fired_at, due_at=next_due_at(plan, last_fired_at))


def _drop_waiting(tx: Transaction, schedule: StoredSchedule, reason: str, now: datetime) -> None:
    waiting = tx.schedules.waiting(schedule.id)
    if waiting is not None:
        dropped = dataclasses.replace(waiting, status=FiringStatus.SKIPPED, reason=reason, decided_at=now)
        tx.schedules.finish_waiting(dropped)


def _check(schedule: StoredSchedule) -> StoredSchedule:
    """Raises InvalidInput for what an execution would be refused for."""
    timeout = schedule.timeout_seconds
    if timeout is not None and not 0 < timeout <= MAX_TIMEOUT_SECONDS:
        raise invalid("timeout_seconds", timeout, f"more than 0 and at most {MAX_TIMEOUT_SECONDS:.0f} seconds")
    given: object = schedule.plan.input_data
    if schedule.kind is Kind.CODE_BLOCK and not isinstance(given, dict):
        raise invalid("input_data", given, "an object of keyword arguments: it is a code block")
    size = len(to_json([given, schedule.config]))
    if size > MAX_SCHEDULE_BYTES:
        raise errors.PayloadTooLarge(
            f"input_data and config have {size} bytes as JSON: expected at most {MAX_SCHEDULE_BYTES}",
            details=[{"field": "input_data", "message": f"{size} bytes, at most {MAX_SCHEDULE_BYTES}"}],
        )
    return schedule


def _ring(tx: Transaction, org_id: str, workspace_id: str, wanted: str | None) -> Ring:
    if wanted is not None:
        return find_ring(tx, org_id, workspace_id, wanted)
    rings = tx.catalog.list_rings(org_id, workspace_id)
    if not rings:
        raise errors.NotFound("the workspace has no ring")
    return min(rings, key=lambda ring: ring.order)
