"""Executions that repeat others by hand: a chain from the first to the newest, each of which knows both neighbours.

A terminal status is final, so a retry is a new execution. It inherits the calls of the one that it repeats, and goes on
from there: what completed is kept, what still runs is joined, what failed is repeated. A child that is repeated on the
way is a link of such a chain, too, and inherits in turn; so is a child that was retried by hand before its parent was.

What is joined stays below the execution that started it, which has ended. So its end is told along the chain (`ends`),
and whoever joined it counts it among its unfinished children until then.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from flow_platform.domain import errors
from flow_platform.domain.execution import Execution
from flow_platform.store.base import Payload, Transaction


def begin(tx: Transaction, execution: Execution, payload: Payload) -> None:
    """Makes a new execution the repetition of the one that it names: both know each other, and it inherits its calls.

    Results of steps, timers and events are known by their names alone, whatever the input was; so with another input
    only children are inherited, which are known by theirs.

    Raises:
        Conflict: `already_retried`.
    """
    repeated = tx.executions.find(execution.retry_of_id, for_update=True) if execution.retry_of_id else None
    if repeated is None:
        return
    if repeated.retried_as_id is not None:
        raise already_retried(repeated)
    tx.executions.update(repeated, dataclasses.replace(repeated, retried_as_id=execution.id))
    is_same = _canonical(tx.executions.payload(repeated.id).input_data) == _canonical(payload.input_data)
    tx.executions.inherit_calls(execution.id, repeated.id, checkpoints=is_same)


def already_retried(execution: Execution) -> errors.Conflict:
    newer = execution.retried_as_id
    return errors.Conflict(
        f"execution {execution.id!r} was retried as {newer!r}: retry that one",
        code="already_retried",
        details=[{"field": "retried_as_execution_id", "message": newer}],
    )


def later_ids(tx: Transaction, execution: Execution) -> Iterator[str]:
    """The executions that repeat it, one after the other. Each is newer than the one before, so this ends."""
    later: Execution | None = execution
    while later is not None and later.retried_as_id is not None:
        yield later.retried_as_id
        later = tx.executions.find(later.retried_as_id)


def newest(tx: Transaction, execution: Execution) -> Execution:
    """The last one of its chain; the execution itself if nobody retried it."""
    found = execution
    for later_id in later_ids(tx, execution):
        found = tx.executions.find(later_id) or found
    return found


def joined_children(tx: Transaction, execution: Execution) -> list[Execution]:
    """Unfinished children of the executions that it repeats, as far as its own calls were answered with them."""
    found: list[Execution] = []
    earlier_id = execution.retry_of_id
    while earlier_id is not None:
        unfinished = tx.executions.live_children(earlier_id)
        found += [child for child in unfinished if tx.executions.joined(execution.id, child.id)]
        earlier = tx.executions.find(earlier_id)
        earlier_id = earlier.retry_of_id if earlier else None
    return found


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
