"""What goes into an execution and what comes out of it."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import bindparam

from flow_platform.domain import errors
from flow_platform.store.base import Payload, Result
from flow_platform.store.connection import Connection
from flow_platform.store.documents import payload_or_null, value_or
from flow_platform.store.query import Query, UpsertQuery
from flow_platform.store.tables import execution_payloads, execution_results

_p = execution_payloads.c
_r = execution_results.c
_EMPTY_OBJECT: dict[str, object] = {}
_EMPTY_LIST: list[object] = []

_INSERT_PAYLOAD = Query("insert payload", sa.insert(execution_payloads).inline())
_PAYLOAD = Query(
    "payload",
    sa.select(_p.input_data, _p.config, _p.session_id, _p.messages, _p.state).where(
        _p.execution_id == bindparam("execution_id")
    ),
)
_SAVE_RESULT = UpsertQuery(
    "save result",
    execution_results,
    lambda insert: insert.on_conflict_do_update(
        index_elements=[_r.execution_id],
        set_={name: insert.excluded[name] for name in ("output", "usage", "messages", "state")},
    ),
)
_RESULT = Query(
    "result",
    sa.select(_r.output, _r.usage, _r.messages, _r.state).where(_r.execution_id == bindparam("execution_id")),
)


class ExecutionPayloads:
    _connection: Connection

    def _save_payload(self, execution_id: str, payload: Payload) -> None:
        self._connection.run(
            _INSERT_PAYLOAD,
            {
                "execution_id": execution_id,
                "input_data": payload_or_null(payload.input_data),
                "config": payload_or_null(payload.config, _EMPTY_OBJECT),
                "session_id": payload_or_null(payload.session_id),
                "messages": payload_or_null(payload.messages, _EMPTY_LIST),
                "state": payload_or_null(payload.state, _EMPTY_OBJECT),
            },
        )

    def payload(self, execution_id: str) -> Payload:
        row = self._connection.row(_PAYLOAD, {"execution_id": execution_id})
        if row is None:
            raise errors.NotFound(f"execution {execution_id!r} does not exist")
        input_data, config, session_id, messages, state = row
        return Payload(
            input_data=value_or(input_data),
            config=value_or(config, {}),
            session_id=value_or(session_id),
            messages=value_or(messages, []),
            state=value_or(state, {}),
        )

    def result(self, execution_id: str) -> Result:
        row = self._connection.row(_RESULT, {"execution_id": execution_id})
        return Result(*(value_or(text) for text in row)) if row else Result()

    def save_result(self, execution_id: str, result: Result) -> None:
        self._connection.run(
            _SAVE_RESULT,
            {
                "execution_id": execution_id,
                "output": payload_or_null(result.output),
                "usage": payload_or_null(result.usage),
                "messages": payload_or_null(result.messages),
                "state": payload_or_null(result.state),
            },
        )
