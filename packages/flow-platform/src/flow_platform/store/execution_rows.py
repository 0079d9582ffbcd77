"""An execution as a row, and back.

A row holds the fields of `Execution` in the order of the class, then `due_at`, which only the database needs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Final

from flow_platform.domain.execution import Execution, RetryPolicy
from flow_platform.store.connection import Row
from flow_platform.store.documents import (
    document_from,
    document_or_null,
    document_to_json,
    from_json,
    json_or_null,
    to_json,
)
from flow_platform.store.instants import from_micros_or_none, to_micros, to_micros_or_none
from flow_platform.store.tables import executions
from flow_sdk.wire.execution import ErrorDocument, MetricsDocument
from flow_sdk.wire.isolation import Isolation
from flow_sdk.wire.status import Kind, Status

FIELDS: Final = tuple(field.name for field in fields(Execution))
COLUMNS: Final = tuple(executions.c[name] for name in FIELDS)
MUTABLE: Final = (
    "status",
    "attempt",
    "failures",
    "losses",
    "lease_epoch",
    "lease_holder",
    "lease_instance",
    "lease_expires_at",
    "available_at",
    "started_at",
    "finished_at",
    "priority",
    "error",
    "metrics",
    "retried_as_id",
)
"""What `update` writes. Not `live_children`: that is counted in the database, by statements of its own."""

_INSTANTS: Final = frozenset(name for name in FIELDS if name.endswith("_at"))
_NO_METRICS: Final = MetricsDocument()
_NO_RETRY: Final = RetryPolicy()


def to_row(execution: Execution) -> dict[str, Any]:
    row = {name: getattr(execution, name) for name in FIELDS}
    row["kind"] = execution.kind.value
    row["isolation"] = execution.isolation.value
    row["created_at"] = to_micros(execution.created_at)
    row["deadline_at"] = to_micros(execution.deadline_at)
    row["limit_keys"] = json_or_null(list(execution.limit_keys), [])
    row["retry"] = None if execution.retry == _NO_RETRY else _retry_to_json(execution.retry)
    for name in MUTABLE:
        row[name] = column_value(name, row[name])
    row["due_at"] = to_micros_or_none(execution.due_at)
    return row


def changed_columns(before: Execution, after: Execution) -> dict[str, Any]:
    """The columns that differ; with `due_at`, if that does."""
    changes: dict[str, Any] = {}
    for name in MUTABLE:
        value = getattr(after, name)
        if value != getattr(before, name):
            changes[name] = column_value(name, value)
    due_at = after.due_at
    if due_at != before.due_at:
        changes["due_at"] = to_micros_or_none(due_at)
    return changes


def column_value(name: str, value: Any) -> Any:
    if name in _INSTANTS:
        return to_micros_or_none(value)
    match name:
        case "status":
            return value.value
        case "error":
            return document_or_null(value)
        case "metrics":
            return None if value == _NO_METRICS else document_to_json(value)
        case _:
            return value


def from_row(row: Row) -> Execution:
    """The columns are `COLUMNS`, in that order."""
    values = list(row)
    for position, convert in _CONVERSIONS:
        values[position] = convert(values[position])
    return Execution(*values)


@functools.lru_cache(maxsize=1024)
def _retry_to_json(retry: RetryPolicy) -> str:
    return to_json(vars(retry))


@functools.lru_cache(maxsize=1024)
def _retry_from_json(text: str) -> RetryPolicy:
    policy = from_json(text)
    policy["non_retryable_errors"] = tuple(policy["non_retryable_errors"])
    return RetryPolicy(**policy)


def _retry(text: str | None) -> RetryPolicy:
    return _NO_RETRY if text is None else _retry_from_json(text)


def _error(text: str | None) -> ErrorDocument | None:
    return None if text is None else document_from(ErrorDocument, text)


def _metrics(text: str | None) -> MetricsDocument:
    return _NO_METRICS if text is None else document_from(MetricsDocument, text)


def keys_from(text: str | None) -> tuple[str, ...]:
    return () if text is None else tuple(from_json(text))


_CONVERSION_OF: Final[dict[str, Callable[[Any], Any]]] = {
    **dict.fromkeys(_INSTANTS, from_micros_or_none),
    "kind": Kind,
    "status": Status,
    "retry": _retry,
    "error": _error,
    "metrics": _metrics,
    "limit_keys": keys_from,
    "isolation": Isolation,
}
_CONVERSIONS: Final = tuple((FIELDS.index(name), convert) for name, convert in _CONVERSION_OF.items())
