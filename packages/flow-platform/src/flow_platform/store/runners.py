"""Runners that were heard of."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import bindparam

from flow_platform.store.connection import Connection
from flow_platform.store.instants import to_micros
from flow_platform.store.query import Query, UpsertQuery
from flow_platform.store.runner_table import RegisteredRunner
from flow_platform.store.tables import runners
from flow_sdk.wire.isolation import DEFAULT, Isolation

_r = runners.c
_REGISTERED = ("instance", "slots", "registered_at", "seen_at", "completed", "isolations")
_NOBODY = RegisteredRunner()
_REGISTER = UpsertQuery(
    "register runner",
    runners,
    lambda insert: insert.on_conflict_do_update(
        index_elements=[_r.id],
        set_={name: insert.excluded[name] for name in _REGISTERED},
    ),
)
_SEEN = Query(
    "runner seen",
    sa.update(runners)
    .where(_r.id == bindparam("id_"), _r.instance == bindparam("instance_"))
    .values(seen_at=bindparam("seen_at"), completed=bindparam("completed")),
)
_FIND = Query("runner by id", sa.select(_r.instance, _r.isolations).where(_r.id == bindparam("id")))
_OFFERED = Query("isolations offered", sa.select(_r.isolations).where(_r.seen_at >= bindparam("since")))
_ALIVE = Query("runners alive", sa.select(sa.func.count()).where(_r.seen_at >= bindparam("since")))


class RunnerRows:
    """Implements `runner_table.RunnerTable`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def register(
        self, runner_id: str, instance: str, slots: int, at: datetime, isolations: Sequence[Isolation] = (DEFAULT,)
    ) -> None:
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
                "isolations": ",".join(isolations),
            },
        )

    def find(self, runner_id: str) -> RegisteredRunner:
        row = self._connection.row(_FIND, {"id": runner_id})
        return RegisteredRunner(row[0], _isolations(row[1])) if row else _NOBODY

    def offered(self, since: datetime) -> frozenset[Isolation]:
        rows = self._connection.rows(_OFFERED, {"since": to_micros(since)})
        return frozenset(isolation for row in rows for isolation in _isolations(row[0]))

    def seen(self, runner_id: str, instance: str, at: datetime, completed: int) -> bool:
        parameters = {"id_": runner_id, "instance_": instance, "seen_at": to_micros(at), "completed": completed}
        return self._connection.run(_SEEN, parameters) == 1

    def alive(self, since: datetime) -> int:
        row = self._connection.row(_ALIVE, {"since": to_micros(since)})
        return row[0] if row else 0


@functools.lru_cache(maxsize=64)
def _isolations(text: str) -> tuple[Isolation, ...]:
    return tuple(Isolation(word) for word in text.split(",") if word)
