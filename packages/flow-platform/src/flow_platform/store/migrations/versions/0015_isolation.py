"""Isolation of rings and executions; the queue by isolation, so that a claim never walks over what it cannot take.

Revision ID: 0015
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
READY = "status = 'queued' AND available_at IS NULL"
RANK = "created_at - priority * 60000000"
LANE = "component_id || '@' || coalesce(ring_id, '') || ':' || isolation || coalesce(limit_keys, '')"
DEFAULT = "namespaces"


def upgrade() -> None:
    for table, column in (("executions", "isolation"), ("rings", "minimum_isolation"), ("runners", "isolations")):
        op.add_column(table, sa.Column(column, WORD, server_default=DEFAULT, nullable=False))
    op.execute("UPDATE rings SET minimum_isolation = 'process' WHERE name = 'dev'")
    op.drop_index("ix_executions_ready", table_name="executions")
    _partial("ix_executions_ready", [sa.text("(isolation || '')"), sa.text(f"({RANK})"), "id"])
    op.drop_index("ix_executions_lane", table_name="executions")
    _partial("ix_executions_lane", ["workspace_id", sa.text(f"({LANE})"), sa.text(f"({RANK})"), "id"])


def _partial(name: str, columns: Sequence[str | sa.TextClause]) -> None:
    where = sa.text(READY)
    op.create_index(name, "executions", list(columns), unique=False, sqlite_where=where, postgresql_where=where)
