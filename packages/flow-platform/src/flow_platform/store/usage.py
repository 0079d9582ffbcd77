"""Roll-ups of the ledger: one statement per way of grouping, over the index by workspace and time."""

from __future__ import annotations

import functools
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Table, bindparam

from flow_platform.store.ledger_table import By
from flow_platform.store.query import Query
from flow_platform.store.tables import Word, components, workspaces

_MICROS_PER_DAY: Final = sa.literal_column("86400000000", sa.BigInteger)
_FIGURES: Final = ("cpu_us", "memory_kib_ms", "prompt_tokens", "completion_tokens", "micro_credits")


@functools.cache
def usage_query(ledger: Table, by: By, *, in_workspace: bool) -> Query:
    """Args:
    in_workspace: Of one workspace; else of all of the organization.
    """
    entry = ledger.c
    own = workspaces.alias("own")
    of_org = sa.select(own.c.id).where(own.c.org_id == bindparam("org_id"))
    where = entry.workspace_id == bindparam("workspace_id") if in_workspace else entry.workspace_id.in_(of_org)
    key = _key(ledger, by)
    figures = [sa.cast(sa.func.sum(entry[name]), sa.BigInteger).label(name) for name in _FIGURES]
    grouped = (
        sa.select(key.label("key"), sa.func.count().label("entries"), *figures)
        .where(where, entry.org_id == bindparam("org_id"))
        .where(entry.at >= bindparam("since"), entry.at < bindparam("until"))
        .group_by(key)
    )
    rows = grouped.subquery("rows")
    columns = [rows.c.entries, *(rows.c[name] for name in _FIGURES)]
    order = (rows.c.key,) if by == "day" else (rows.c.micro_credits.desc(), rows.c.key)
    statement = sa.select(rows.c.key, _name(rows, by), *columns).order_by(*order).limit(bindparam("limit"))
    return Query(f"usage by {by} {in_workspace=}", statement)


def _key(ledger: Table, by: By) -> Any:
    match by:
        case "component":
            return sa.func.coalesce(ledger.c.component_id, sa.literal_column("''"))
        case "workspace":
            return ledger.c.workspace_id
        case "model":
            return sa.func.coalesce(ledger.c.model, sa.literal_column("''"))
        case "day":
            # Instants are integers, and so is what a division of integers gives in both databases.
            return sa.type_coerce(ledger.c.at.op("/")(_MICROS_PER_DAY), sa.BigInteger)


def _name(rows: Any, by: By) -> Any:
    match by:
        case "component":
            return sa.select(components.c.slug).where(components.c.id == rows.c.key).scalar_subquery()
        case "workspace":
            return sa.select(workspaces.c.name).where(workspaces.c.id == rows.c.key).scalar_subquery()
        case _:
            return sa.literal_column("''", Word)
