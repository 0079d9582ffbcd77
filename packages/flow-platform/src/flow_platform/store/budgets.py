"""Budgets of workspaces, and what was spent in the periods that they look at.

The sums are kept only where there is a budget: an entry of the ledger adds to those of its day and its month.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Column, PrimaryKeyConstraint, Table, bindparam

from flow_platform.domain.budget import Budget, Standing, day_key, day_start, month_key, month_start, standing
from flow_platform.store.connection import Connection
from flow_platform.store.instants import to_micros
from flow_platform.store.query import Query, UpsertQuery
from flow_platform.store.tables import Instant, Word, metadata

budgets = Table(
    "budgets",
    metadata,
    Column("workspace_id", Word, nullable=False),
    Column("org_id", Word, nullable=False),
    Column("daily", sa.BigInteger, nullable=True),
    Column("monthly", sa.BigInteger, nullable=True),
    Column("warn_percent", sa.BigInteger, nullable=False),
    Column("refuses", sa.Boolean, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Column("updated_by", sa.Text, nullable=False),
    PrimaryKeyConstraint("workspace_id", "org_id"),
)
_b = budgets.c

budget_spent = Table(
    "budget_spent",
    metadata,
    Column("workspace_id", Word, nullable=False),
    Column("org_id", Word, nullable=False),
    Column("period", Word, nullable=False),
    Column("micro_credits", sa.BigInteger, nullable=False),
    PrimaryKeyConstraint("workspace_id", "org_id", "period"),
)
_s = budget_spent.c

_OF_ONE: Final = (_b.workspace_id == bindparam("workspace_id"), _b.org_id == bindparam("org_id"))
_COLUMNS: Final = ("workspace_id", "org_id", "period", "micro_credits")


def _amount_for(period: str) -> Any:
    return sa.select(
        _b.workspace_id, _b.org_id, bindparam(period, type_=Word), bindparam("amount", type_=sa.BigInteger)
    ).where(*_OF_ONE)


def _adding(insert: Any) -> Any:
    return insert.on_conflict_do_update(
        index_elements=["workspace_id", "org_id", "period"],
        set_={"micro_credits": _s.micro_credits + insert.excluded.micro_credits},
    )


CHARGE: Final = UpsertQuery(
    "charge budget",
    budget_spent,
    lambda insert: _adding(insert.from_select(list(_COLUMNS), sa.union_all(_amount_for("day"), _amount_for("month")))),
)
"""Adds to day and month of a workspace that has a budget; of others it writes nothing."""


def _spent(period: str) -> Any:
    amount = sa.select(_s.micro_credits).where(
        _s.workspace_id == _b.workspace_id, _s.org_id == _b.org_id, _s.period == bindparam(period)
    )
    return sa.func.coalesce(amount.correlate(budgets).scalar_subquery(), sa.literal_column("0"))


_STANDING = Query(
    "budget standing",
    sa.select(_b.daily, _b.monthly, _b.warn_percent, _b.refuses, _spent("day"), _spent("month")).where(*_OF_ONE),
)
_SAVE = UpsertQuery(
    "save budget",
    budgets,
    lambda insert: insert.on_conflict_do_update(
        index_elements=["workspace_id", "org_id"],
        set_={
            name: insert.excluded[name]
            for name in ("daily", "monthly", "warn_percent", "refuses", "updated_at", "updated_by")
        },
    ),
)
_SAVE_SPENT = UpsertQuery(
    "save spent",
    budget_spent,
    lambda insert: insert.on_conflict_do_update(
        index_elements=["workspace_id", "org_id", "period"], set_={"micro_credits": insert.excluded.micro_credits}
    ),
)
_DELETE = Query("delete budget", sa.delete(budgets).where(*_OF_ONE))
_DELETE_SPENT = Query(
    "delete spent",
    sa.delete(budget_spent).where(_s.workspace_id == bindparam("workspace_id"), _s.org_id == bindparam("org_id")),
)
# Waits for the writers of entries that saw no budget yet, and lets none begin before this is committed.
_WAIT_FOR_WRITERS = Query("wait for writers of the ledger", sa.text("LOCK TABLE ledger_entries IN SHARE MODE"))
_RECORDED_SINCE = Query(
    "spent since",
    sa.text(
        "SELECT CAST(coalesce(sum(micro_credits), 0) AS BIGINT) FROM ledger_entries"
        " WHERE workspace_id = :workspace_id AND at >= :since"
    ),
)
"""Text, as the ledger's module needs this one."""


class BudgetRows:
    """Implements `BudgetTable`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def standing(self, org_id: str, workspace_id: str, now: datetime) -> Standing | None:
        parameters = {
            "org_id": org_id,
            "workspace_id": workspace_id,
            "day": day_key(now),
            "month": month_key(now),
        }
        row = self._connection.row(_STANDING, parameters)
        if row is None:
            return None
        daily, monthly, warn_percent, refuses, today, this_month = row
        return standing(Budget(daily, monthly, warn_percent, bool(refuses)), today, this_month, now)

    def save(self, org_id: str, workspace_id: str, budget: Budget, by: str, now: datetime) -> None:
        of_one = {"org_id": org_id, "workspace_id": workspace_id}
        if self._connection.row(_STANDING, {**of_one, "day": "", "month": ""}) is None:
            self._begin(of_one, now)
        values = {**of_one, **vars(budget), "updated_at": to_micros(now), "updated_by": by}
        self._connection.run(_SAVE, values)

    def _begin(self, of_one: dict[str, Any], now: datetime) -> None:
        """What was spent before there was a budget, counts."""
        if self._connection.dialect == "postgresql":
            self._connection.run(_WAIT_FOR_WRITERS, {})
        for period, since in ((day_key(now), day_start(now)), (month_key(now), month_start(now))):
            row = self._connection.row(
                _RECORDED_SINCE, {"workspace_id": of_one["workspace_id"], "since": to_micros(since)}
            )
            spent = {**of_one, "period": period, "micro_credits": row[0] if row else 0}
            self._connection.run(_SAVE_SPENT, spent)

    def delete(self, org_id: str, workspace_id: str) -> None:
        of_one = {"org_id": org_id, "workspace_id": workspace_id}
        self._connection.run(_DELETE, of_one)
        self._connection.run(_DELETE_SPENT, of_one)
