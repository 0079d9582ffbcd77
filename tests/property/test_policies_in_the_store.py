"""Turns over a real store, in any order of events: no limit is exceeded, no slot stays idle, nothing leaks.

What may start is told by the rules themselves, looked at one by one, without lanes, pages or clocks.
"""

from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from flow_platform.domain import execution as domain
from flow_platform.domain.clock import ManualClock
from flow_platform.domain.execution import Execution
from flow_platform.domain.policy import Policies, Policy, component_key, key_key, workspace_key
from flow_platform.domain.rate_limit import RateLimit
from flow_platform.engine import turns as module
from flow_platform.engine.turns import Turns
from flow_platform.store import open_store
from flow_platform.store.base import ExecutionFilter, Payload, Transaction
from flow_sdk.wire.status import Status
from tests.support.policies import set_policies, start_next
from tests.support.store_records import execution

WORKSPACES = ("w1", "w2", "w3")
SLOTS = 6
STEPS = 120


class World:
    """A store, and everything that ever was in it."""

    def __init__(self, tx: Transaction, chance: random.Random) -> None:
        self.tx = tx
        self.chance = chance
        self.clock = ManualClock()
        self.turns = Turns()
        self.policies: dict[str, list[Policy]] = {}
        self.starts: dict[str, list[object]] = {}

    def submit(self) -> None:
        chance = self.chance
        workspace = chance.choice(WORKSPACES)
        component, ring = workspace + chance.choice("abc"), chance.choice("xy")
        now = self.clock.now()
        delayed = now + timedelta(seconds=chance.randint(1, 20)) if chance.random() < 0.2 else None
        key = key_key(component, ring, chance.choice("123"))
        for _ in range(chance.choice((1, 1, 3, 12))):
            self.clock.advance(timedelta(microseconds=1))
            one = execution(
                workspace_id=workspace,
                component_id=component,
                ring_id=ring,
                limit_keys=(key,) if chance.random() < 0.6 else (),
                priority=chance.randint(-1, 2),
                created_at=self.clock.now(),
                available_at=delayed,
                deadline_at=now + timedelta(hours=1),
            )
            self.tx.executions.insert(one, Payload())

    def edit(self) -> None:
        chance = self.chance
        workspace = chance.choice(WORKSPACES)
        components = [workspace + letter for letter in "abc"]
        scopes = [(c, r) for c in (None, *components) for r in (None, *"xy") if c or r]
        policies = [
            Policy(
                component,
                ring,
                concurrency=chance.choice((None, 0, 1, 2)),
                concurrency_per_key=chance.choice((None, 1, 2)),
                rate=chance.choice((None, None, RateLimit(1, timedelta(seconds=5), 2))),
            )
            for component, ring in chance.sample(scopes, chance.randint(0, 3))
        ]
        if chance.random() < 0.3:
            policies.append(Policy(concurrency=chance.choice((0, 1, 3)), weight=chance.choice((None, 1, 5))))
        self.policies[workspace] = policies
        set_policies(self.tx, workspace, policies, self.clock.now())

    def end(self) -> None:
        running = self.all(Status.RUNNING)
        if not running:
            return
        one, now = self.chance.choice(running), self.clock.now()
        match self.chance.randint(0, 3):
            case 0:
                after = domain.apply(one, domain.AttemptReturned(now, domain.ErrorDocument(code="returned")))
            case 1:
                later = now + timedelta(seconds=3)
                after = domain.apply(one, domain.AttemptRetried(now, domain.ErrorDocument(code="e"), later, lost=False))
            case _:
                after = domain.apply(one, domain.AttemptSucceeded(now))
        self.tx.executions.update(one, after)

    def all(self, status: Status) -> list[Execution]:
        where = ExecutionFilter(status=status)
        return [one for name in WORKSPACES for one in self.tx.executions.list("org", name, where, None, 10_000).items]

    def counts(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for one in self.all(Status.RUNNING):
            found.update(keys_of(one))
        return found

    def limits_of(self, one: Execution) -> dict[str, int]:
        policies = Policies(self.policies.get(one.workspace_id, []))
        policy = policies.for_execution(one.component_id, one.ring_id)
        limits = {
            component_key(one.component_id, one.ring_id): policy.concurrency,
            workspace_key(one.workspace_id): policies.workspace.concurrency,
            **dict.fromkeys(one.limit_keys, policy.concurrency_per_key),
        }
        return {key: limit for key, limit in limits.items() if limit is not None}

    def rate_of(self, one: Execution) -> RateLimit | None:
        policies = Policies(self.policies.get(one.workspace_id, []))
        return policies.for_execution(one.component_id, one.ring_id).rate

    def start(self) -> None:
        before, slots = self.counts(), SLOTS - len(self.all(Status.RUNNING))
        started, look_again_at = start_next(self.tx, self.turns, max(slots, 0), self.clock.now())
        after = self.counts()
        for one in started:
            for key, limit in self.limits_of(one).items():
                assert after[key] <= limit, f"{key}: {after[key]} run, {limit} may ({before[key]} ran before)"
        if len(started) >= slots:
            return
        now = self.clock.now()
        left = [one for one in self.all(Status.QUEUED) if (one.available_at or now) <= now]
        for one in left:
            is_full = any(after[key] >= limit for key, limit in self.limits_of(one).items())
            assert is_full or self.rate_of(one), f"{one} could start, and a slot is free"
            if not is_full:
                assert look_again_at is not None
                assert now < look_again_at <= now + timedelta(seconds=5)


def keys_of(one: Execution) -> list[str]:
    return [*one.limit_keys, component_key(one.component_id, one.ring_id), workspace_key(one.workspace_id)]


@pytest.mark.parametrize("seed", range(12))
async def test_no_limit_is_exceeded_and_no_slot_left_idle(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Small pages, so that they have ends.
    monkeypatch.setattr(module, "PAGE", 1 + seed % 4)
    monkeypatch.setattr(module, "MAX_ROUNDS", 200)
    chance = random.Random(seed)  # noqa: S311

    def run(tx: Transaction) -> None:
        world = World(tx, chance)
        for _ in range(STEPS):
            chance.choice((world.submit, world.edit, world.end, world.end, world.start, world.start))()
            # Below the patience of `domain.limits`: it keeps places empty for who waits for several keys.
            world.clock.advance(timedelta(milliseconds=chance.choice((1, 50, 400))))
            if seed % 2 == 0:
                world.start()
        for workspace in WORKSPACES:
            world.policies[workspace] = []
            set_policies(tx, workspace, [], world.clock.now())
        world.clock.advance(timedelta(minutes=1))
        while world.all(Status.QUEUED):
            started, _ = start_next(tx, world.turns, 50, world.clock.now())
            assert started, "nothing is left behind"

    store = open_store(f"sqlite:///{tmp_path / 'flow.db'}")
    await store.open()
    await store.write(run)
    await store.close()
