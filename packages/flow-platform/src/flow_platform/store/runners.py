"""Runners that were heard of."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import bindparam

from flow_platform.store.connection import Connection
from flow_platform.store.instants import to_micros
from flow_platform.store.query import Query, UpsertQuery
from flow_platform.store.tables import runners

_r = runners.c
_REGISTER = UpsertQuery(
    "register runner",
    runners,
    lambda insert: insert.on_conflict_do_update(
        index_elements=[_r.id],
        set_={name: insert.excluded[name] for name in ("instance", "slots", "registered_at", "seen_at", "completed")},
    ),
)
_SEEN = Query(
    "runner seen",
    sa.update(runners)
    .where(_r.id == bindparam("id_"), _r.instance == bindparam("instance_"))
    .values(seen_at=bindparam("seen_at"), completed=bindparam("completed")),
)
_INSTANCE = Query("instance of runner", sa.select(_r.instance).where(_r.id == bindparam("id")))
_ALIVE = Query("runners alive", sa.select(sa.func.count()).where(_r.seen_at >= bindparam("since")))


class RunnerRows:
    """Implements `base.RunnerTable`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def register(self, runner_id: str, instance: str, slots: int, at: datetime) -> None:
        micros = to_micros(at)
        self._connection.run(
            _REGISTER,
            {
                "id": runner_id,
                "instance": instance,
                "slots": slots,
                "registered_at": micros,
                "seen_at": micros,
                "completed": 0,
            },
        )

    def instance(self, runner_id: str) -> str | None:
        row = self._connection.row(_INSTANCE, {"id": runner_id})
        return row[0] if row else None

    def seen(self, runner_id: str, instance: str, at: datetime, completed: int) -> bool:
        parameters = {"id_": runner_id, "instance_": instance, "seen_at": to_micros(at), "completed": completed}
        return self._connection.run(_SEEN, parameters) == 1

    def alive(self, since: datetime) -> int:
        row = self._connection.row(_ALIVE, {"since": to_micros(since)})
        return row[0] if row else 0
