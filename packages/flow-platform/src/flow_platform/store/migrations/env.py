"""Alembic's entry. Run by `schema.upgrade` inside a transaction that it has begun; there is no alembic.ini.

To change the schema: change `tables.py`, add `versions/NNNN_what.py` with the next number and the `down_revision`
before it, set `schema.HEAD`. There are no downgrades: a backup is the way back. The test of the schema says when the
sum of the migrations is not `tables.py`.
"""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
