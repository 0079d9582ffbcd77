"""Logs of a process. Names of fields are here, so that they are the same everywhere.

A log line has a constant message; what varies is in `extra`, under the names below. Lines are JSON for machines or
plain text for people; in both, text from outside cannot begin a line of its own.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final, TextIO

EXECUTION_ID: Final = "execution_id"
ATTEMPT: Final = "attempt"
LEASE_EPOCH: Final = "lease_epoch"
REQUEST_ID: Final = "request_id"

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


def execution_fields(execution_id: str, attempt: int, lease_epoch: int) -> dict[str, Any]:
    """The `extra` of every line about an attempt."""
    return {EXECUTION_ID: execution_id, ATTEMPT: attempt, LEASE_EPOCH: lease_epoch}


def configure_logging(log_format: str, level: str, stream: TextIO | None = None) -> None:
    """Sends all logs of the process to one stream, standard error by default; replaces what was set up before.

    Args:
        log_format: `json` or `text`.
        level: `debug`, `info`, `warning` or `error`.
        stream: For tests and for processes that log into a file.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else PlainLines())
    root = logging.getLogger()
    for earlier in list(root.handlers):
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for noisy in ("httpx", "httpcore", "nats", "uvicorn.access", "alembic"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))


class JsonLines(logging.Formatter):
    """One JSON object per line: `time`, `level`, `logger`, `message`, the fields of `extra`, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        document = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str)


class PlainLines(logging.Formatter):
    """`time level logger message field=value ...`; a traceback follows indented."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={_one_line(str(value))}" for name, value in _extra(record).items())
        message = _one_line(record.getMessage())
        line = f"{_time(record)} {record.levelname.lower():<8} {record.name} {message}{fields}"
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            line += "".join(f"\n    {_one_line(part)}" for part in trace.splitlines())
        return line


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _one_line(text: str) -> str:
    """Control characters escaped: a value from outside neither begins a line nor drives a terminal."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
