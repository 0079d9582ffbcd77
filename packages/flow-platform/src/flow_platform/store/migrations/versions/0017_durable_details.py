"""Details of durable workflows.

Revision ID: 0017
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("calls", sa.Column("is_numbered", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("calls", sa.Column("lent", sa.BigInteger(), server_default="0", nullable=False))
