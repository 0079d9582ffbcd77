"""Approval, rollback rule and share of rings and deployments; variables of organizations and workspaces.

Revision ID: 0004
"""

from __future__ import annotations

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Filled by the room that owns it."""
