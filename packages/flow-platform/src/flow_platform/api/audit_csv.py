"""The audit log as CSV, for spreadsheets. To be verified it is exported as JSON lines: these rows leave things out."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import Any, Final, cast

from flow_platform.domain.audit import AuditEntry

COLUMNS: Final = (
    *("sequence", "at", "kind", "subject", "role", "credential", "action", "workspace_id", "target", "changed"),
    *("status", "code", "count", "address", "user_agent", "request_id", "runner", "hash"),
)


def csv_head() -> bytes:
    return _row(COLUMNS)


def csv_row(entry: AuditEntry) -> bytes:
    document = entry.document
    flat = {**_part(document, "who"), **_part(document, "from"), **document, "hash": entry.hash}
    return _row([_cell(flat.get(name)) for name in COLUMNS])


def harmless(cell: object) -> object:
    """Text that a spreadsheet would take for a formula, behind an apostrophe. Source: OWASP, CSV Injection."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else cell


def _part(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = document.get(name)
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _cell(value: Any) -> object:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False) if value else ""
    return harmless(value)


def _row(cells: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)  # Source: RFC 4180.
    return text.getvalue().encode()
