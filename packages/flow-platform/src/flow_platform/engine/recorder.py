"""Records what runners report: the one place where an attempt's end becomes an execution's status.

Reports arrive over JetStream, possibly twice, late, or from a runner that lost its lease. Each is one transaction that
compares the lease epoch first: equal means it is the current attempt's, anything else changes nothing. The message is
acknowledged only after the commit, so a crash in between repeats the message, and the repetition changes nothing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from flow_platform.domain import errors
from flow_platform.domain import execution as domain
from flow_platform.domain.clock import Clock
from flow_platform.domain.execution import Execution
from flow_platform.domain.ledger import RateCard
from flow_platform.engine import outcome, reports, suspension
from flow_platform.engine.cancel import Cancelled, CancelNotices, cancel_children
from flow_platform.engine.charges import charge_attempt
from flow_platform.engine.claims import Claims
from flow_platform.engine.ends import Changes, Ends
from flow_platform.engine.grants import Grant, Grants
from flow_platform.engine.replay import forgiven, tell_mismatch
from flow_platform.engine.reports import Message, OutputReport
from flow_platform.engine.rollout_watch import failure_keys
from flow_platform.engine.stages import Stages
from flow_platform.engine.wakeups import WORK, Wakeups
from flow_platform.store.base import Attempt, NewEvent, Result, Store, Transaction
from flow_sdk.wire import subjects
from flow_sdk.wire.execution import MetricsDocument
from flow_sdk.wire.status import Status

logger = logging.getLogger(__name__)

GetObject = Callable[[str], Awaitable[bytes]]

# Per execution, over all attempts: a runner bounds each attempt, this (give or take a batch) bounds their sum.
MAX_EVENTS: Final = 50_000


@dataclass(frozen=True)
class _Recorded:
    """What one report changed; None of it when the report was stale."""

    changes: Changes
    cancelled: Cancelled
    granted: list[Grant]


class Recorder:
    """Handlers for the three streams; each is given batches and returns when they are committed."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        wakeups: Wakeups,
        stages: Stages,
        notices: CancelNotices,
        claims: Claims,
        grants: Grants,
        get_object: GetObject,
        ends: Ends,
        rates: RateCard,
    ) -> None:
        self._store = store
        self._clock = clock
        self._wakeups = wakeups
        self._stages = stages
        self._notices = notices
        self._claims = claims
        self._grants = grants
        self._get_object = get_object
        self._ends = ends
        self._rates = rates

    async def record_outputs(self, messages: Sequence[Message]) -> None:
        """Ends the attempts that the messages report.

        Raises:
            StoreUnavailable: Nothing of at least one message was written; the batch must be delivered again.
        """
        await asyncio.gather(*(self._record_output(message) for message in messages))

    async def record_events(self, messages: Sequence[Message]) -> None:
        await self._append(messages, reports.parse_event)

    async def record_statuses(self, messages: Sequence[Message]) -> None:
        """Keeps a container's own statuses as events, but for `running`, which the lease already says."""
        worth = [message for message in messages if b'"running"' not in message.body]
        await self._append(worth, reports.parse_status)

    async def _record_output(self, message: Message) -> None:
        try:
            report = reports.parse_output(message, await self._body(message))
        except reports.Malformed as error:
            logger.warning("dropped a malformed report: %s", error)
            return
        stages = self._stages.finish(report.origin.execution_id, report.metrics.stages)
        recorded = await self._store.write(lambda tx: self._apply(tx, report, stages))
        if recorded is None:
            logger.info("dropped a stale report", extra=_fields(report))
            return
        self._claims.deliver(recorded.granted)
        # Who waits for work here was thought of in the transaction, but not of work that is available later.
        later = [WORK] if recorded.changes.has_queued else []
        ended = recorded.changes.executions
        changed = [*(execution.id for execution in ended), *failure_keys(ended)]
        self._wakeups.notify_local([*changed, *later])
        self._wakeups.notify_others([*changed, WORK])
        self._notices.send(recorded.cancelled)

    async def _body(self, message: Message) -> bytes:
        name = message.headers.get(subjects.HEADER_PAYLOAD_OBJECT)
        if not name:
            return message.body
        if not name.startswith(message.subject.rsplit(".", 1)[1] + "/"):
            raise reports.Malformed(f"{message.subject!r} names object {name!r}, which is not its own")
        try:
            return await self._get_object(name)
        except errors.NotFound as error:
            # The object is gone (its stream was deleted): the runner publishes again until it is recorded.
            raise reports.Malformed(f"{message.subject!r}: object {name!r} is gone") from error

    def _apply(self, tx: Transaction, report: OutputReport, stages: dict[str, float]) -> _Recorded | None:
        before = tx.executions.find(report.origin.execution_id, for_update=True)
        if before is None:
            return None
        now = self._clock.now()
        charge_attempt(tx, self._rates, before, report, now)
        if before.status.is_terminal or before.lease_epoch != report.origin.lease_epoch:
            return None
        if before.lease_holder is None:
            return None  # Its lease was taken away (attempt retried) and no newer one given yet.
        metrics = outcome.metrics_of(before, report, stages)
        if report.error is not None and suspension.is_asked_for(before, report.error):
            counted, event = before, suspension.event_for(tx, before, report.error, now)
        else:
            counted = forgiven(tx, before) if outcome.is_loss(report) else before
            event = outcome.event_for(counted, report, metrics, now)
        after = domain.apply(counted, event)
        if after.status.is_terminal:
            after = dataclasses.replace(after, metrics=metrics)  # However it ended: it was measured all the same.
        if after.status is Status.COMPLETED:
            # Before the change is told: a graph that waits for it reads the output.
            tx.executions.save_result(after.id, Result(report.output, report.usage, report.messages, report.state))
        changes = self._ends.change(tx, before, after, now)
        tx.executions.record_attempt(_attempt(before, report, now, metrics))
        if after.status in (Status.COMPLETED, Status.FAILED) and after.attempt > 1:
            tell_mismatch(tx, after, now)
        reason = f"the end of its parent {after.id}"
        cancelled = cancel_children(tx, self._ends, after, reason, now) if before.live_children else Cancelled()
        return _Recorded(changes, cancelled, self._grants.grant_waiting(tx))

    async def _append(self, messages: Sequence[Message], parse: Callable[..., tuple[reports.Origin, NewEvent]]) -> None:
        now = self._clock.now()
        by_execution: dict[str, list[tuple[reports.Origin, NewEvent]]] = {}
        for message in messages:
            try:
                origin, event = parse(message, now)
            except reports.Malformed as error:
                logger.warning("dropped a malformed event: %s", error)
                continue
            by_execution.setdefault(origin.execution_id, []).append((origin, event))
        if not by_execution:
            return
        try:
            await self._store.write(lambda tx: _append_events(tx, by_execution))
        except (errors.InvalidInput, ValueError, OverflowError) as error:
            if len(messages) > 1:
                raise  # Then they come one by one.
            # It would come again for a day, and enough of its kind would stop the stream for everybody.
            logger.warning("dropped an event that cannot be recorded: %s", error)
            return
        self._wakeups.notify(by_execution)


def _append_events(tx: Transaction, by_execution: dict[str, list[tuple[reports.Origin, NewEvent]]]) -> None:
    for execution_id, parsed in by_execution.items():
        execution = tx.executions.find(execution_id)
        if execution is None:
            continue
        epochs = {execution.lease_epoch}
        if any(origin.lease_epoch not in epochs for origin, _ in parsed):
            # The output of an attempt may overtake its last events, and the next attempt begin at once.
            epochs |= {attempt.lease_epoch for attempt in tx.executions.attempts(execution_id) if attempt.metrics}
        rightful = [event for origin, event in parsed if origin.lease_epoch in epochs]
        if rightful and not tx.executions.events(execution_id, MAX_EVENTS, 1):
            tx.executions.append_events(rightful)


def _attempt(execution: Execution, report: OutputReport, now: datetime, metrics: MetricsDocument) -> Attempt:
    return Attempt(
        execution_id=execution.id,
        number=execution.attempt,
        lease_epoch=execution.lease_epoch,
        runner_id=execution.lease_holder or report.origin.runner_id,
        started_at=report.metrics.started_at or execution.started_at or now,
        finished_at=now,
        error=report.error,
        metrics=report.metrics,
    )


def _fields(report: OutputReport) -> dict[str, object]:
    origin = report.origin
    return {"execution_id": origin.execution_id, "attempt": origin.attempt, "lease_epoch": origin.lease_epoch}
