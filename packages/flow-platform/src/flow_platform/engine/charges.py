"""Writes what ended into the ledger, in the transaction that records the end. The only place that does so for attempts.

What an attempt cost is what its runner measured, however the attempt ended, and also when the report comes after the
execution was ended or the attempt given up: the work was done. An attempt of which no report ever comes costs nothing.
"""

from __future__ import annotations

from datetime import datetime

from flow_platform.domain.execution import Execution
from flow_platform.domain.ledger import RateCard, entry_of_attempt, measured
from flow_platform.engine.reports import OutputReport
from flow_platform.store.base import Transaction


def charge_attempt(tx: Transaction, card: RateCard, execution: Execution, report: OutputReport, now: datetime) -> None:
    """Adds the entry of the attempt that the report is of, once, however often it is reported."""
    usage = measured(report.metrics)
    number = _attempt_of(tx, execution, report.origin.lease_epoch) if usage else None
    if usage is not None and number:
        tx.ledger.append(entry_of_attempt(card, execution, number, usage, now))


def _attempt_of(tx: Transaction, execution: Execution, lease_epoch: int) -> int | None:
    """By the platform's own record of who had the lease, not by what the report says."""
    if lease_epoch == execution.lease_epoch:
        return execution.attempt
    earlier = (one.number for one in tx.executions.attempts(execution.id) if one.lease_epoch == lease_epoch)
    return next(earlier, None)
