"""Graph workflows, run by the engine: what `Ends` calls when one that waits can go on."""

from __future__ import annotations

from datetime import datetime

from flow_platform.domain import execution as domain
from flow_platform.domain.clock import system_entropy
from flow_platform.domain.execution import Execution
from flow_platform.engine.accept import NodeStarter, Room
from flow_platform.engine.cancel import cancel_children
from flow_platform.engine.ends import Ends
from flow_platform.engine.graph_steps import CannotGoOn, take_step
from flow_platform.store.base import Transaction
from flow_sdk.wire.execution import ErrorDocument


def advance(tx: Transaction, graph: Execution, now: datetime) -> list[Execution]:
    """Takes a graph on after one of its nodes ended, or when it begins.

    One that cannot be run any more fails, and what it started is cancelled: the end of a node is recorded in any case.
    The runners of such nodes are told by the answer to their next heartbeat.

    Returns:
        The graph, then what else changed.
    """
    room = Room()
    try:
        after = take_step(tx, graph, now, NodeStarter(tx, now, system_entropy, room))
    except CannotGoOn as error:
        document = ErrorDocument(code=error.error_code, message=error.message, retryable=False)
        failed = domain.apply(graph, domain.ExecutionFailed(now, document))
        tx.executions.update(graph, failed)
        cancelled = cancel_children(tx, Ends(advance), failed, f"the failure of its parent {failed.id}", now)
        return [failed, *cancelled.ended, *cancelled.ending, *cancelled.woken]
    return [after, *room.made]
