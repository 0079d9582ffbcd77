"""Ended calls, given to a workflow that runs again before it makes them.

One that is resumed behind a thousand finished children would ask for each, only to hear what it had been told before.
Its harness asks for the next of them with one request instead, and answers the code by itself. What the code made of
these is told with the harness's next request, or at its end; see `flow_sdk.wire.replay`.

Until then nobody knows, and the attempt may be lost before it says so. Nothing depends on it: a call that was given
ahead has an outcome that stands, so the next attempt is given the same. Only that the code did not make a call
(`replay.mismatch`) is not said of those (`Call.lent`).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from pydantic_core import to_json

from flow_platform.domain import errors
from flow_platform.domain.clock import Clock
from flow_platform.domain.execution import Execution
from flow_platform.domain.principal import Principal, Role
from flow_platform.domain.replay import Call, stands
from flow_platform.engine.checkpoints import document_of_checkpoint
from flow_platform.engine.executions import Executions
from flow_platform.engine.replay import checkpoint_stands
from flow_platform.store.base import Store, Transaction
from flow_sdk.wire.durable import AheadCall, AheadDocument, CheckpointStatus
from flow_sdk.wire.replay import MAX_RANGES, Told, ranges_of
from flow_sdk.wire.status import Status

WINDOW: Final = MAX_RANGES  # Calls that are looked at for one answer; so all of them fit in one header.
MAX_BYTES: Final = 256 << 10  # Of their documents in one answer.
MAX_CALL_BYTES: Final = 32 << 10  # Larger documents are fetched by who makes the call.
MAX_ATTEMPTS: Final = 16  # Whose ends one answer depends on: usually one, as each attempt makes all calls again.

_GIVEN: Final = frozenset({CheckpointStatus.DONE, CheckpointStatus.FAILED, CheckpointStatus.EXPIRED})


class Ahead:
    """Of all executions. Each is given its own calls only: whoever asks is who made them."""

    def __init__(self, store: Store, clock: Clock, executions: Executions) -> None:
        self._store = store
        self._clock = clock
        self._executions = executions

    async def note(self, principal: Principal, told: Told) -> None:
        """Writes down what the harness of the asking execution said of calls that it was given.

        Raises:
            Conflict: `parent_ended`: its attempt has ended.
        """
        if principal.role is Role.EXECUTION and (told.made or told.is_over):
            await self._store.write(lambda tx: _note(tx, _running(tx, principal, for_update=True), told))

    async def calls(self, principal: Principal, after: int) -> AheadDocument:
        """The ended calls behind that one, which the asking execution will make next if it does the same again."""
        if principal.role is not Role.EXECUTION:
            return AheadDocument()

        document = await self._store.read(lambda tx: self._calls(tx, _running(tx, principal), after))
        ranges = ranges_of(call.ordinal for call in document.calls)
        if ranges:
            await self._store.write(lambda tx: _lend(tx, _running(tx, principal, for_update=True), ranges))
        return document

    def _calls(self, tx: Transaction, parent: Execution, after: int) -> AheadDocument:
        now = self._clock.now()
        ends: dict[int, str] = {}
        given: list[AheadCall] = []
        left = MAX_BYTES
        last = after + WINDOW
        for call in tx.executions.calls_to_lend(parent.id, parent.attempt, after + 1, last):
            if call.attempt not in ends:
                if len(ends) == MAX_ATTEMPTS:
                    last = call.ordinal - 1
                    break
                ends[call.attempt] = tx.executions.attempt_error(parent.id, call.attempt) or ""
            made = self._given(tx, parent, call, ends[call.attempt], now)
            size = _size(made) if made else MAX_CALL_BYTES
            if made is None or size >= MAX_CALL_BYTES:
                continue
            left -= size
            if left < 0:
                last = call.ordinal - 1
                break
            given.append(made)
        has_more = tx.executions.count_calls(parent.id) > last
        return AheadDocument(calls=given, after=last if has_more else None)

    def _given(self, tx: Transaction, parent: Execution, call: Call, end: str, now: datetime) -> AheadCall | None:
        """What the call would be answered with now, by `replay`; None: it has to be made."""
        made = AheadCall(ordinal=call.ordinal, key=call.key, occurrence=call.occurrence)
        if call.checkpoint_id is not None:
            checkpoint = tx.checkpoints.find(call.checkpoint_id)
            if checkpoint is None or checkpoint.status_at(now) not in _GIVEN:
                return None
            document = document_of_checkpoint(checkpoint, now)
            is_given = checkpoint_stands(parent, checkpoint, end, now)
            return made.model_copy(update={"checkpoint": document}) if is_given else None
        child = tx.executions.find(call.execution_id) if call.execution_id else None
        if child is None or not child.status.is_terminal or not stands(child.status, end):
            return None
        return made.model_copy(update={"execution": self._executions.document_in(tx, child)})


def _note(tx: Transaction, parent: Execution, told: Told) -> None:
    for first, last in told.made:
        tx.executions.make_lent_calls(parent.id, parent.attempt, first, last)
    if told.is_over:
        tx.executions.take_back_calls(parent.id, parent.attempt)


def _lend(tx: Transaction, parent: Execution, ranges: Iterable[tuple[int, int]]) -> None:
    for first, last in ranges:
        tx.executions.lend_calls(parent.id, parent.attempt, first, last)


def _running(tx: Transaction, principal: Principal, *, for_update: bool = False) -> Execution:
    found = tx.executions.find(principal.execution_id, for_update=for_update) if principal.execution_id else None
    if found is None or found.status is not Status.RUNNING or found.lease_epoch != principal.lease_epoch:
        raise errors.Conflict(
            f"execution {principal.execution_id!r} is no longer running: it makes no calls", code="parent_ended"
        )
    return found


def _size(call: AheadCall) -> int:
    try:
        return len(to_json(call, inf_nan_mode="null"))
    except ValueError:  # Text that is no Unicode, or what is nested too deeply: see `api.answers.encoded`.
        return MAX_CALL_BYTES
