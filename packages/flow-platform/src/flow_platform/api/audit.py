"""The audit log over HTTP: entries by filter, and all of them, for whoever checks the chain."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from flow_platform.api.access import ORGANIZATION
from flow_platform.api.answers import json_answer, query_text, query_whole
from flow_platform.api.audit_csv import csv_head, csv_row
from flow_platform.api.context import principal_of
from flow_platform.api.instants import parse_instant
from flow_platform.api.routing import PAGING, Parameter, Route
from flow_platform.domain.audit import RETENTION, AuditEntry
from flow_platform.engine.validation import invalid
from flow_platform.store.audit_table import AuditFilter
from flow_sdk.wire.management import PageDocument

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

_TAG: Final = "Audit"
_LARGEST: Final = 10**15
_BYTES: Final = 64 << 10  # Of the export that are sent together.


class AuditRoutes:
    """The endpoints of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        every = f"{ORGANIZATION}/audit"
        filters = tuple(
            Parameter(name, description, {"type": "string"})
            for name, description in (
                ("kind", "`change`, `refusal` or `retention`."),
                ("action", "Method and path, as entries have them."),
                ("subject", "Who."),
                ("workspace_id", "Of that workspace."),
                ("since", "From that time on (RFC 3339)."),
                ("until", "Before that time (RFC 3339)."),
            )
        )
        after = Parameter("after", "Behind this entry.", {"type": "integer", "minimum": 0})
        return [
            Route(
                "GET",
                every,
                self.page,
                "Entries of the audit log, newest first.",
                tag=_TAG,
                answers={200: PageDocument},
                parameters=[*filters, *PAGING],
            ),
            Route(
                "GET",
                f"{every}/export",
                self.export,
                "All entries in their order, with their hashes: JSON lines, or CSV.",
                tag=_TAG,
                answers={200: "One entry a line: `org_id`, `sequence`, `text`, `hash`; CSV has a header row"},
                parameters=[after, Parameter("format", "Of the answer.", {"enum": ["jsonl", "csv"]})],
                media_type="application/x-ndjson, text/csv",
            ),
        ]

    async def page(self, request: Request) -> Response:
        where = AuditFilter(
            kind=_kind(query_text(request, "kind")),
            action=query_text(request, "action"),
            subject=query_text(request, "subject"),
            workspace_id=query_text(request, "workspace_id"),
            since=parse_instant("since", since) if (since := query_text(request, "since")) else None,
            until=parse_instant("until", until) if (until := query_text(request, "until")) else None,
        )
        before = query_whole(request, "cursor", 0, 1, _LARGEST) or None
        limit = query_whole(request, "limit", 50, 1, 200)
        entries, cursor = await self._engine.audit.page(
            principal_of(request), request.path_params["org_id"], where, before, limit
        )
        items = [{**entry.document, "hash": entry.hash} for entry in entries]
        return json_answer({"items": items, "next_cursor": None if cursor is None else str(cursor)})

    async def export(self, request: Request) -> Response:
        after = query_whole(request, "after", 0, 0, _LARGEST)
        shape = query_text(request, "format") or "jsonl"
        if shape not in ("jsonl", "csv"):
            raise invalid("format", shape, "'jsonl' or 'csv'")
        (sequence, digest), entries = await self._engine.audit.export(
            principal_of(request), request.path_params["org_id"], after
        )
        headers = {
            "Content-Disposition": f'attachment; filename="audit.{shape}"',
            "X-Audit-Head": f"{sequence}:{digest}",
        }
        if shape == "csv":
            return StreamingResponse(_lines(entries, csv_row, csv_head()), 200, headers, "text/csv; charset=utf-8")
        return StreamingResponse(_lines(entries, _line, b""), 200, headers, "application/x-ndjson")


async def _lines(
    entries: AsyncGenerator[AuditEntry], line: Callable[[AuditEntry], bytes], head: bytes
) -> AsyncGenerator[bytes]:
    gathered = head
    async with aclosing(entries):
        async for entry in entries:
            gathered += line(entry)
            if len(gathered) >= _BYTES:
                yield gathered
                gathered = b""
    if gathered:
        yield gathered


def _line(entry: AuditEntry) -> bytes:
    document = {"org_id": entry.org_id, "sequence": entry.sequence, "text": entry.text, "hash": entry.hash}
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _kind(value: str | None) -> str | None:
    if value not in (None, "change", "refusal", RETENTION):
        raise invalid("kind", value, "'change', 'refusal' or 'retention'")
    return value
