"""A random history of executions on a stage, and what it must have cost by a model that only counts reports.

The model: an attempt costs what its first report says that it used, whenever it comes; a model call costs its price.
Nothing else costs anything.
"""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import timedelta
from typing import Any

from flow_platform.domain import errors
from flow_platform.domain.ledger import RateCard, measured
from flow_platform.domain.model_call import ModelCall, TokenUsage
from flow_platform.engine.retry_rules import Changed
from flow_platform.gateway.metering import StoredCalls
from flow_sdk.wire.durable import SUSPENDED
from flow_sdk.wire.execution import StatusDocument
from flow_sdk.wire.runner import Assignment, AttemptMetrics
from flow_sdk.wire.status import Kind
from tests.support.eventually import eventually
from tests.support.stage import Stage

ERRORS = (
    {"code": "component_error", "type": "ValueError", "message": "no"},
    {"code": "process_crashed", "message": "signal 9"},
    {"code": "runner_drained", "message": "stops"},
    {"code": SUSPENDED, "details": []},
    {"code": "timeout", "message": "late"},
)
EVENTS = ("test", "workflow", "agent_run", "mcp_session")


class CostHistory:
    """Takes random steps.

    Attributes:
        roots: By execution, the top of its tree.
        costs: By execution and what cost it something.
        events: By root.
        outside: Micro-credits of model calls that no execution made.
    """

    def __init__(self, stage: Stage, seed: int) -> None:
        self.stage = stage
        self.random = random.Random(seed)  # noqa: S311 - a test history.
        self.card = RateCard("model-1", discounts={"test": 50, "mcp_session": 33})
        self.meter = StoredCalls(stage.engine.store, stage.clock, self.card)
        self.running: list[Assignment] = []
        self.ended: list[Assignment] = []
        self.parents: dict[str, str | None] = {}
        self.events: dict[str, str] = {}
        self.costs: dict[str, dict[str, int]] = defaultdict(dict)
        self.outside = 0
        self._calls = 0

    async def prepare(self) -> None:
        self.stage.engine._recorder._rates = self.card
        self.stage.runner.slots = 500
        retry = {"max_attempts": 3, "initial_interval_seconds": 0.001}
        await self.stage.publish("worker", retry=retry)
        await self.stage.publish("flow", Kind.WORKFLOW, retry=retry)

    async def take(self, steps: int) -> None:
        ways = [self.start, self.call, self.call, self.end, self.end, self.end, self.again, self.ask, self.cancel]
        rare = [self.lose, self.time_out, self.retry]
        for _ in range(steps):
            await self.random.choice(rare if self.random.random() < 0.1 else ways)()
            self.stage.clock.advance(timedelta(milliseconds=20))
            await self.claim()

    async def settle(self) -> None:
        """Everything that was reported is recorded: what is reported last is recorded last."""
        execution = await self.stage.submit("worker")
        self.note(execution.id, None, "workflow")
        assignment = next((one for one in self.running if one.execution_id == execution.id), None)
        assignment = assignment or await self.stage.claim(execution.id)
        await self.report(assignment, None)
        await self.stage.wait(execution.id)

    async def claim(self) -> None:
        self.running += await self.stage.runner.claim(0.02)

    async def start(self) -> None:
        event = self.random.choice(EVENTS)
        slug, kind = self.random.choice([("worker", Kind.CODE_BLOCK), ("flow", Kind.WORKFLOW), ("flow", Kind.WORKFLOW)])
        execution = await self.stage.submit(slug, kind=kind, lifecycle_event=event)
        self.note(execution.id, None, event)

    async def call(self) -> None:
        """A call of a running workflow: new, or, when it runs again, the same as before."""
        callers = [one for one in self.running if one.kind is Kind.WORKFLOW]
        if not callers:
            return
        caller = self.random.choice(callers)
        slug, kind = self.random.choice([("worker", Kind.CODE_BLOCK), ("flow", Kind.WORKFLOW)])
        try:
            inside = self.stage.inside(caller)
            # What a client sends by default; the tree's own event counts.
            child = await self.stage.submit(
                slug, inside, kind=kind, input_data={"n": self.random.randrange(3)}, lifecycle_event="agent_run"
            )
        except errors.FlowError:
            return  # Its attempt has ended meanwhile.
        if child.id not in self.parents:
            self.note(child.id, child.parent_id, child.lifecycle_event)

    async def end(self) -> None:
        if not self.running:
            return
        assignment = self.running.pop(self.random.randrange(len(self.running)))
        self.ended.append(assignment)
        await self.report(assignment, self.random.choice([None, None, *ERRORS]))

    async def again(self) -> None:
        """A report that comes twice, or late, and says something else."""
        if self.ended:
            await self.report(self.random.choice(self.ended), self.random.choice([None, *ERRORS]))

    async def report(self, assignment: Assignment, error: dict[str, Any] | None) -> None:
        used = {
            "cpu_ms": round(self.random.uniform(0, 50), 3),
            "max_rss_bytes": self.random.randrange(1 << 28),
            "run_ms": round(self.random.uniform(0, 1000), 3),
        }
        await self.stage.runner.report(assignment, None if error else 1, error, measured=used)
        usage = measured(AttemptMetrics(**used))
        assert usage is not None
        own = self.costs[assignment.execution_id]
        source = f"attempt:{assignment.attempt}"
        if source not in own:
            own[source] = self.card.compute(usage, self.events[self.root(assignment.execution_id)])
            await eventually(lambda: self._entries(assignment.execution_id), lambda sources: source in sources)

    async def _entries(self, execution_id: str) -> set[str]:
        root = self.root(execution_id)
        entries = await self.stage.engine.store.read(lambda tx: tx.ledger.entries(root, execution_id, 1000))
        return {entry.source for entry in entries}

    async def ask(self) -> None:
        """A model call, of an execution in whatever state, or from outside."""
        self._calls += 1
        caller = self.random.choice([None, *self.parents])
        price = self.random.randrange(1000)
        call = ModelCall(
            id=f"call-{self._calls}",
            org_id=self.stage.org_id,
            workspace_id=self.stage.workspace_id,
            kind="chat",
            provider="test",
            model="echo",
            created_at=self.stage.clock.now(),
            execution_id=caller,
            usage=TokenUsage(3, 4),
            cost_micro_credits=price,
            price_version="1",
        )
        await self.meter.record(call)
        if caller is None:
            self.outside += self.card.tokens(price, "")
        else:
            event = self.events[self.root(caller)]
            self.costs[caller][f"model_call:{call.id}"] = self.card.tokens(price, event)

    async def cancel(self) -> None:
        if self.parents and self.random.random() < 0.4:
            await self.stage.cancel(self.random.choice(list(self.parents)))

    async def lose(self) -> None:
        """Nobody hears of the runner for longer than its leases."""
        self.stage.clock.advance(timedelta(seconds=11))
        await self.stage.engine.sweeper.sweep()
        self.ended += self.running
        self.running = []

    async def time_out(self) -> None:
        self.stage.clock.advance(timedelta(seconds=400))
        while await self.stage.engine.sweeper.sweep():
            pass
        self.ended += self.running
        self.running = []

    async def retry(self) -> None:
        if not self.parents:
            return
        stage, chosen = self.stage, self.random.choice(list(self.parents))
        try:
            again = await stage.engine.retries.retry(
                stage.admin, stage.org_id, stage.workspace_id, chosen, Changed(), None
            )
        except errors.FlowError:
            return  # It goes on, or was retried before.
        self.note(again.id, again.parent_id, again.lifecycle_event)

    def note(self, execution_id: str, parent_id: str | None, event: str) -> None:
        self.parents[execution_id] = parent_id
        self.events.setdefault(self.root(execution_id), event)

    def root(self, execution_id: str) -> str:
        parent = self.parents[execution_id]
        return execution_id if parent is None else self.root(parent)

    # What the platform must say.

    def own(self, execution_id: str) -> int:
        return sum(self.costs[execution_id].values())

    def total(self, execution_id: str) -> int:
        below = [child for child, parent in self.parents.items() if parent == execution_id]
        return self.own(execution_id) + sum(self.total(child) for child in below)

    @property
    def everything(self) -> int:
        return self.outside + sum(self.own(execution_id) for execution_id in self.parents)

    async def documents(self) -> dict[str, StatusDocument]:
        return {execution_id: await self.stage.get(execution_id) for execution_id in self.parents}
