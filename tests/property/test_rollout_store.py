"""Rings over the real store, under any order of what people ask and what executions come to.

The same promises as of the pure rules (`test_rollout.py`), but of the rows: never two active, never two on their way,
never other content after a promotion, and a rollback restores exactly what was there.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flow_platform.domain import errors
from flow_platform.domain.clock import ManualClock, system_entropy
from flow_platform.domain.execution import Execution
from flow_platform.domain.principal import Principal, Role
from flow_platform.domain.release import Deployment, DeploymentState, RollbackRule
from flow_platform.domain.rollout import ON_ITS_WAY
from flow_platform.engine.accept import Submission, accept
from flow_platform.engine.rollout_watch import RolloutWatch
from flow_platform.engine.rollouts import RingChange, Rollouts
from flow_platform.engine.wakeups import Wakeups
from flow_platform.store import open_store
from flow_platform.store.base import Transaction, Workspace
from flow_platform.store.rollout_port import SmokeInput
from tests.support.rollouts_alone import rollouts_over
from tests.support.store_records import NOW, completed, component, failed, ring, started, version

ADMIN = Principal("ada", "org", Role.ADMIN)
WHERE = ("org", "workspace")
NAMES = ("dev", "staging", "production")
VERSIONS = 3
RULE = RollbackRule(failure_rate=0.5, minimum_count=4)
SEEDS = range(6)
STEPS = 250


class RingsOfTheStore:
    """Two components in three rings; the last one asks for approvals and rolls back by itself."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a walk, no secret.
        self.runner = asyncio.Runner()
        self.store = open_store(f"sqlite:///{folder / 'flow.db'}")
        self.runner.run(self.store.open())
        self.clock = ManualClock(NOW)
        self.rollouts: Rollouts = rollouts_over(self.store, self.clock)
        self.watch = RolloutWatch(self.store, self.clock, Wakeups(), self.rollouts)
        self.components = [component(slug=slug, latest_version=VERSIONS) for slug in ("one", "two")]
        self.versions = {of.id: [version(of, number + 1) for number in range(VERSIONS)] for of in self.components}
        self.rings = {
            name: ring(name=name, order=order, auto_deploy=False, requires_approval=order == 2, rollback=RULE)
            for order, name in enumerate(NAMES)
        }
        self.runner.run(self.store.write(self._prepare))
        self.stacks: dict[tuple[str, str], list[str]] = {}
        self.known: dict[str, Deployment] = {}
        self.asks = True
        # Something to begin with: both are in dev, and the second one is validated from now on.
        for which in (0, 1):
            self.deploy(which, "dev", 1, 0)
        self.smoke_input(1, has=True)

    def _prepare(self, tx: Transaction) -> None:
        tx.tenancy.insert_organization("org", "Org", NOW)
        tx.tenancy.insert_workspace(Workspace("org", "workspace", "W"), NOW)
        for of in self.components:
            tx.catalog.insert_component(of)
            for one in self.versions[of.id]:
                tx.catalog.insert_version(one)
        for one in self.rings.values():
            tx.catalog.insert_ring(one)

    def close(self) -> None:
        self.runner.run(self.store.close())
        self.runner.close()

    def step(self) -> None:
        """One thing that somebody asks, or that happens."""
        choose, name = self.random.choice, self.random.choice(NAMES)
        which, back = self.random.randrange(2), self.random.randrange(4)
        into = NAMES[min(NAMES.index(name) + 1, 2)] if self.random.random() < 0.8 else choose(NAMES)
        steps: list[tuple[int, Callable[[], None]]] = [
            (3, lambda: self.deploy(which, name, self.random.randint(1, VERSIONS), choose([0, 0, 30]))),
            (1, lambda: self.smoke_input(which, has=choose([True, False]))),
            (6, lambda: self.promote(name, into, choose([True, True, False]), choose([0, 0, 50]))),
            (3, lambda: self.roll_back(name, back)),
            (3, lambda: self.approve(back)),
            (4, lambda: self.share(name, back, choose([10, 60, 100]))),
            (1, lambda: self.change_the_last_ring(choose([True, True, False]))),
            (6, lambda: self.smoke_runs_end(self.random.random() < 0.8, choose([None, 0, 1]))),
            (3, lambda: self.executions_end(name, self.random.randint(1, 6), bad=choose([True, False]))),
            (1, lambda: self.time_passes(self.random.randint(1, 4000))),
            (6, self.the_watch_looks),
        ]
        self.random.choices([act for _, act in steps], [weight for weight, _ in steps])[0]()
        self.one_is_active_and_one_on_its_way_at_most()
        self.content_stays_what_it_was()
        self.a_set_is_active_together()

    def attempt(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Asks; a refusal must change nothing."""

        async def asked() -> Any:
            return await call()

        before = self.rows()
        try:
            answer = self.runner.run(asked())
        except (errors.Conflict, errors.InvalidInput, errors.NotFound):
            assert self.rows() == before, "a refused call changes nothing"
            return None
        self.note(before)
        return answer

    def rows(self) -> dict[str, Deployment]:
        page = self.runner.run(
            self.store.read(lambda tx: tx.catalog.list_deployments(*WHERE, None, None, None, 100_000))
        )
        return {one.id: one for one in page.items}

    def note(self, before: dict[str, Deployment]) -> None:
        """Follows what was active, as a stack per component and ring, from the rows alone."""
        after = self.rows()
        for one in sorted(after.values(), key=lambda one: one.id):
            was = before.get(one.id)
            key = (one.component_id, one.ring_id)
            stack = self.stacks.setdefault(key, [])
            if self.asks and was is None and one.ring_id == self.rings["production"].id:
                assert one.state is DeploymentState.QUEUED, "an approval comes first"
            if one.state is not DeploymentState.ACTIVE or (was and was.state is DeploymentState.ACTIVE):
                continue
            if was and was.state is DeploymentState.SUPERSEDED:
                assert stack[-2] == one.id, "a rollback goes exactly one back"
                stack.pop()
                assert (one.digest, one.version_id, one.previous_id) == (was.digest, was.version_id, was.previous_id)
                assert one.is_restored
            else:
                stack.append(one.id)
                assert one.previous_id == (stack[-2] if len(stack) > 1 else None)
        self.known = after

    # What people ask.

    def deploy(self, which: int, name: str, number: int, share: int) -> None:
        of = self.components[which]
        self.attempt(lambda: self.rollouts.deploy(ADMIN, *WHERE, of.id, self.rings[name].id, number, share))

    def smoke_input(self, which: int, has: bool) -> None:
        smoke = SmokeInput({}) if has else None
        of = self.components[which]
        self.runner.run(self.store.write(lambda tx: tx.rollouts.set_smoke_input(of.id, smoke)))

    def promote(self, source: str, into: str, both: bool, share: int) -> None:
        found = self._in(source, lambda one: one.state is DeploymentState.ACTIVE)
        if not found:
            return
        chosen = found if both else [self.random.choice(found)]
        ids = [one.id for one in chosen]
        made = self.attempt(lambda: self.rollouts.promote(ADMIN, *WHERE, ids, self.rings[into].id, share))
        for one, promoted in zip(chosen, made or [], strict=False):
            assert promoted.digest == one.digest
            assert NAMES.index(source) < NAMES.index(into)

    def roll_back(self, name: str, back: int) -> None:
        self._any(name, back, lambda one: self.rollouts.roll_back(ADMIN, *WHERE, one.id))

    def approve(self, back: int) -> None:
        self._any("production", back, lambda one: self.rollouts.approve(ADMIN, *WHERE, one.id))

    def share(self, name: str, back: int, share: int) -> None:
        self._any(name, back, lambda one: self.rollouts.share(ADMIN, *WHERE, one.id, share))

    def change_the_last_ring(self, asks: bool) -> None:
        change = RingChange({"requires_approval": asks})
        self.asks = asks
        self.attempt(lambda: self.rollouts.change_ring(ADMIN, *WHERE, self.rings["production"].id, change))

    # What happens.

    def smoke_runs_end(self, good: bool, only: int | None) -> None:
        of = None if only is None else self.components[only].id
        waiting = [one for one in self.known.values() if one.state in ON_ITS_WAY and one.smoke_execution_id]
        for one in waiting:
            if of in (None, one.component_id):
                self.runner.run(self.store.write(lambda tx, one=one: self._end(tx, str(one.smoke_execution_id), good)))

    def _end(self, tx: Transaction, execution_id: str, good: bool) -> None:
        found: Execution | None = tx.executions.find(execution_id)
        assert found is not None
        if found.status.is_terminal:
            return
        running = started(found, at=self.clock.now())
        tx.executions.update(found, running)
        end = completed if good else failed
        tx.executions.update(running, end(running, at=self.clock.now()))

    def executions_end(self, name: str, count: int, bad: bool) -> None:
        of = self.random.choice(self.components)

        def operation(tx: Transaction) -> None:
            here = tx.catalog.find_ring(*WHERE, self.rings[name].id)
            assert here is not None
            for _ in range(count):
                submission = Submission(of.kind, of.id, {}, auto_deploy=False)
                made = accept(tx, submission, of, here, None, now=self.clock.now(), entropy=system_entropy)
                self._end(tx, made.id, not bad)

        self.attempt(lambda: self.store.write(operation))

    def time_passes(self, seconds: int) -> None:
        self.clock.advance(timedelta(seconds=seconds))

    def the_watch_looks(self) -> None:
        self.attempt(self.watch.look)
        # Whatever it could do it has done: a second look finds nothing, so nothing is ever stuck.
        before = self.rows()
        self.attempt(self.watch.look)
        if self.rows() != before:
            self.attempt(self.watch.look)
        stuck = [
            one
            for one in self.rows().values()
            if one.state is DeploymentState.VALIDATING and not one.share and not self._runs(one)
        ]
        assert not stuck

    def _runs(self, one: Deployment) -> bool:
        """Whether its smoke run, or another one of its set, has not ended."""
        members = [found for found in self.rows().values() if found.set_id and found.set_id == one.set_id] or [one]
        ids = [member.smoke_execution_id for member in members if member.smoke_execution_id]
        found = [self.runner.run(self.store.read(lambda tx, id_=id_: tx.executions.find(id_))) for id_ in ids]
        return any(execution is not None and not execution.status.is_terminal for execution in found)

    def _in(self, name: str, accept: Callable[[Deployment], bool]) -> list[Deployment]:
        ring_id = self.rings[name].id
        return [one for one in self.known.values() if one.ring_id == ring_id and accept(one)]

    def _any(self, name: str, back: int, ask: Callable[[Deployment], Awaitable[Any]]) -> None:
        found = sorted(self._in(name, lambda _: True), key=lambda one: one.id)
        if found:
            chosen = found[-1 - back % len(found)]
            self.attempt(lambda: ask(chosen))

    # What always holds.

    def one_is_active_and_one_on_its_way_at_most(self) -> None:
        for key, stack in self.stacks.items():
            here = [one for one in self.known.values() if (one.component_id, one.ring_id) == key]
            assert [one.id for one in here if one.state is DeploymentState.ACTIVE] == stack[-1:]
            assert len([one for one in here if one.state in ON_ITS_WAY]) <= 1

    def content_stays_what_it_was(self) -> None:
        for one in self.known.values():
            digests = {each.id: each.digest for each in self.versions[one.component_id]}
            assert one.digest == digests[one.version_id]
            if one.promoted_from_id:
                assert self.known[one.promoted_from_id].digest == one.digest

    def a_set_is_active_together(self) -> None:
        sets: dict[str, list[Deployment]] = {}
        for one in self.known.values():
            if one.set_id:
                sets.setdefault(one.set_id, []).append(one)
        for members in sets.values():
            were_active = {one.activated_at is not None for one in members}
            assert len(were_active) == 1, "all or none"


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_rings_keep_their_promises_in_any_order(tmp_path: Path, seed: int) -> None:
    walk = RingsOfTheStore(tmp_path, seed)
    try:
        for _ in range(STEPS):
            walk.step()
        assert len(walk.known) >= 8, f"{len(walk.known)} deployments: hardly anything was tried"
    finally:
        walk.close()
