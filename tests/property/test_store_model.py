"""The store against a model of it: any order of calls, any lease ever granted, and the same promises.

The engine's part is played by the shortest code that is right: decide with `domain`, compare the epoch, write. The
model is a dict. Whatever is refused must change nothing, so after every step all rows are compared.
"""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule

from flow_platform.domain import errors
from flow_platform.domain import execution as domain
from flow_platform.domain.clock import ManualClock, new_id, seeded_entropy
from flow_platform.domain.execution import Execution, RetryPolicy
from flow_platform.domain.limits import AGING
from flow_platform.store import open_store
from flow_platform.store.base import ExecutionFilter, IdempotencyRecord, Payload, Transaction
from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.status import Status
from tests.support.store_records import TICK, execution

T = TypeVar("T")
LEASE = timedelta(seconds=10)
ERROR = ErrorDocument(code="component_error")
SWEEP_LIMIT = 50
MAX_EXAMPLES = 50  # Planted faults (no fence, a boundary the wrong way round) are found well within these.
RUNNERS = st.sampled_from(["r1", "r1", "r2"])
FATES = st.sampled_from(["fails", "fails", "succeeds", "fails for good"])


@dataclass(frozen=True)
class Lease:
    execution_id: str
    epoch: int
    runner: str


class StoreMachine(RuleBasedStateMachine):
    submitted = Bundle("submitted")
    leases = Bundle("leases")

    @initialize(target=submitted)
    def open(self) -> Any:
        self.clock = ManualClock()
        self.entropy = seeded_entropy(0)
        # In memory where that is possible: the order of calls is on trial here, not the disk.
        self.folder = Path(
            tempfile.mkdtemp(prefix="flow-model-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        )
        shutil.copy(_template(), self.folder / "flow.db")
        self.runner = asyncio.Runner()
        self.store = open_store(f"sqlite:///{self.folder / 'flow.db'}")
        self.runner.run(self.store.open())
        self.model: dict[str, Execution] = {}
        self.keys: dict[str, str] = {}
        self.granted: dict[str, list[int]] = {}
        # Something to begin with, of each priority and kind of retry.
        return multiple(*(self.submit(None, number % 2, 600, number // 2 * 2, None) for number in range(4)))

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.run(self.store.close())
            self.runner.close()
            shutil.rmtree(self.folder)

    def write(self, operation: Callable[[Transaction], T]) -> T:
        return self.runner.run(self.store.write(operation))

    def read(self, operation: Callable[[Transaction], T]) -> T:
        return self.runner.run(self.store.read(operation))

    # What clients do.

    @rule(
        target=submitted,
        key=st.sampled_from([None, None, None, "k1", "k2"]),
        priority=st.integers(0, 1),
        timeout=st.sampled_from([600, 600, 30, 5]),
        pause=st.sampled_from([2, 0]),
        parent=st.none() | submitted,
    )
    def submit(self, key: str | None, priority: int, timeout: int, pause: int, parent: str | None) -> str:
        now = self.clock.now()
        one = execution(
            id=new_id(now, self.entropy),
            created_at=now,
            deadline_at=now + timedelta(seconds=timeout),
            priority=priority,
            retry=RetryPolicy(4, initial_interval_seconds=pause, backoff_coefficient=1),
        )
        above = self.model[parent] if parent and not self.model[parent].status.is_terminal else None
        if above:
            one = dataclasses.replace(one, parent_id=above.id, root_id=above.root_id, depth=above.depth + 1)

        def operation(tx: Transaction) -> str:
            if key and (known := tx.executions.find_idempotent("org", "workspace", key)):
                return known.execution_id
            tx.executions.insert(one, Payload({"id": one.id}))
            if above:
                tx.executions.adopt_child(above.id)
            if key:
                tx.executions.save_idempotent("org", "workspace", IdempotencyRecord(key, "f", one.id), now)
            return one.id

        accepted = self.write(operation)
        if key and key in self.keys:
            assert accepted == self.keys[key], "the same key is the same execution"
            return accepted
        assert accepted == one.id
        self.model[one.id] = one
        if key:
            self.keys[key] = one.id
        if above:
            self._count_child(above.id, 1)
        return accepted

    @rule(execution_id=submitted)
    def cancel(self, execution_id: str) -> None:
        self._apply(execution_id, domain.CancelRequested(self.clock.now(), ErrorDocument(code="cancelled")))

    # What runners do.

    @precondition(lambda self: any(one.status is Status.QUEUED for one in self.model.values()))
    @rule(target=leases, runner=RUNNERS, limit=st.sampled_from([4, 2, 1]))
    def acquire(self, runner: str, limit: int) -> Any:
        now = self.clock.now()

        def operation(tx: Transaction) -> list[Execution]:
            granted = []
            tx.executions.mature(now, 1000)
            for one in tx.executions.acquire(now, limit):
                after = domain.apply(one, domain.AttemptStarted(now, runner, "one", now + LEASE))
                tx.executions.update(one, after)
                granted.append(after)
            return granted

        granted = self.write(operation)
        expected = sorted(
            (one for one in self.model.values() if self._is_available(one)),
            key=lambda one: (one.created_at - one.priority * AGING, one.id),
        )[:limit]
        for one in self.model.values():
            if one.status is Status.QUEUED and one.available_at and one.available_at <= now:
                self.model[one.id] = dataclasses.replace(one, available_at=None)
        assert [one.id for one in granted] == [one.id for one in expected]
        for one in granted:
            epochs = self.granted.setdefault(one.id, [])
            assert all(one.lease_epoch > epoch for epoch in epochs), "an epoch is granted once"
            epochs.append(one.lease_epoch)
            self.model[one.id] = one
        return multiple(*(Lease(one.id, one.lease_epoch, runner) for one in granted))

    @rule(lease=leases, fate=FATES)
    def finish(self, lease: Lease, fate: str) -> None:
        """With any lease ever granted: most are old."""
        now = self.clock.now()

        def operation(tx: Transaction) -> Execution:
            one = tx.executions.find(lease.execution_id, for_update=True)
            assert one is not None
            after = domain.apply(one, self._end(one, lease, fate))
            tx.executions.update(one, after)
            return after

        try:
            after = self.write(operation)
        except (errors.StaleLease, errors.IllegalTransition):
            assert not self._holds(lease), "refused only when it is not the current lease"
            return
        assert self._holds(lease)
        assert now == self.clock.now()
        self._change(after)

    @precondition(lambda self: any(one.lease_holder for one in self.model.values()))
    @rule(data=st.data(), fate=FATES)
    def finish_a_current_one(self, data: st.DataObject, fate: str) -> None:
        holding = [one for one in self.model.values() if one.lease_holder]
        one = data.draw(st.sampled_from(holding))
        self.finish(Lease(one.id, one.lease_epoch, one.lease_holder or ""), fate)

    @precondition(lambda self: self.granted)
    @rule(runner=RUNNERS, data=st.data())
    def extend(self, runner: str, data: st.DataObject) -> None:
        """Any of the leases that were ever granted, to whomever."""
        ever = [Lease(one, epoch, runner) for one, epochs in self.granted.items() for epoch in epochs]
        held = data.draw(st.lists(st.sampled_from(ever), max_size=4))
        until = self.clock.now() + LEASE
        pairs = [(lease.execution_id, lease.epoch) for lease in held]

        extended = self.write(lambda tx: tx.executions.extend(runner, "one", pairs, until))

        expected = {lease.execution_id for lease in held if self._holds(lease)}
        assert extended == expected
        for execution_id in extended:
            one = self.model[execution_id]
            if one.status is Status.RUNNING:
                self.model[execution_id] = dataclasses.replace(one, lease_expires_at=until)

    # What time does.

    @rule(seconds=st.sampled_from([2, 1, 5, 10, 30]))
    def advance(self, seconds: int) -> None:
        self.clock.advance(timedelta(seconds=seconds))

    @precondition(lambda self: any(one.due_at for one in self.model.values()))
    @rule()
    def advance_to_what_is_due_next(self) -> None:
        """To the very instant: one tick before, nothing happens."""
        next_due = min(one.due_at for one in self.model.values() if one.due_at)
        if next_due > self.clock.now():
            self.clock.advance(next_due - self.clock.now() - TICK)
            self.sweep()
            self.clock.advance(TICK)
            self.sweep()

    @precondition(lambda self: any(one.due_at and one.due_at <= self.clock.now() for one in self.model.values()))
    @rule()
    def sweep(self) -> None:
        now = self.clock.now()

        def operation(tx: Transaction) -> list[Execution]:
            changed = []
            for one in tx.executions.due(now, SWEEP_LIMIT):
                if one.deadline_at <= now or one.status is Status.CANCELLING:
                    event: domain.Event = domain.DeadlineReached(now, ErrorDocument(code="timeout"))
                else:
                    event = domain.decide_loss(one, ErrorDocument(code="runner_lost"), now)
                after = domain.apply(one, event)
                tx.executions.update(one, after)
                changed.append(after)
            return changed

        changed = self.write(operation)
        expected = {one.id for one in self.model.values() if one.due_at is not None and one.due_at <= now}
        assert {one.id for one in changed} == expected
        for one in changed:
            self._change(one)

    # What must always be true.

    @invariant()
    def the_rows_are_the_model(self) -> None:
        if not hasattr(self, "model"):
            return
        stored, counts, in_use = self.read(self._look)
        assert {one.id: one for one in stored} == self.model
        assert sum(counts.values()) == sum(not one.status.is_terminal for one in stored)
        for one in stored:
            assert (one.lease_holder is not None) == (one.status in (Status.RUNNING, Status.CANCELLING))
            assert one.attempt <= one.max_attempts
            assert one.live_children == sum(
                child.parent_id == one.id and not child.status.is_terminal for child in stored
            )
        for runner, count in in_use.items():
            assert count == sum(one.lease_holder == runner and not one.live_children for one in stored)

    @staticmethod
    def _look(tx: Transaction) -> tuple[list[Execution], dict[Status, int], dict[str, int]]:
        return (
            tx.executions.list("org", "workspace", ExecutionFilter(), None, 1000).items,
            tx.executions.counts(),
            {runner: tx.executions.slots_in_use(runner, "one") for runner in ("r1", "r2")},
        )

    def _is_available(self, one: Execution) -> bool:
        now = self.clock.now()
        return one.status is Status.QUEUED and one.deadline_at > now and (one.available_at or now) <= now

    def _holds(self, lease: Lease) -> bool:
        one = self.model[lease.execution_id]
        return one.lease_holder == lease.runner and one.lease_epoch == lease.epoch

    def _end(self, one: Execution, lease: Lease, fate: str) -> domain.Event:
        if one.lease_epoch != lease.epoch or one.lease_holder != lease.runner:
            raise errors.StaleLease(f"epoch {lease.epoch!r} is not {one.lease_epoch!r}")
        now = self.clock.now()
        if fate == "succeeds" and one.status is Status.RUNNING:
            return domain.AttemptSucceeded(now)
        return domain.decide_failure(one, ErrorDocument(code="e", retryable=fate == "fails"), now)

    def _apply(self, execution_id: str, event: domain.Event) -> None:
        def operation(tx: Transaction) -> Execution:
            one = tx.executions.find(execution_id, for_update=True)
            assert one is not None
            after = domain.apply(one, event)
            tx.executions.update(one, after)
            return after

        try:
            after = self.write(operation)
        except errors.IllegalTransition:
            assert type(event) not in domain.TRANSITIONS[self.model[execution_id].status]
            return
        self._change(after)

    def _change(self, after: Execution) -> None:
        before = self.model[after.id]
        assert not before.status.is_terminal, "terminal is for ever"
        # Rows that changed together: what was read first may not have counted the others' ends yet.
        self.model[after.id] = dataclasses.replace(after, live_children=before.live_children)
        if after.status.is_terminal and after.parent_id:
            self._count_child(after.parent_id, -1)

    def _count_child(self, parent_id: str, by: int) -> None:
        parent = self.model[parent_id]
        self.model[parent_id] = dataclasses.replace(parent, live_children=parent.live_children + by)


_templates: list[Path] = []


def _template() -> Path:
    return _templates[0]


@pytest.mark.slow
def test_the_store_keeps_its_promises_in_any_order(tmp_path: Path) -> None:
    async def migrate() -> None:
        store = open_store(f"sqlite:///{tmp_path / 'template.db'}")
        await store.open()
        await store.close()

    asyncio.run(migrate())
    _templates[:] = [tmp_path / "template.db"]
    machine: Any = StoreMachine.TestCase
    machine.settings = settings(
        max_examples=MAX_EXAMPLES,
        stateful_step_count=40,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    machine().runTest()
