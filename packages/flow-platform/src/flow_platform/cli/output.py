"""What people and programs see: data on stdout, everything else on stderr; colors and tables on a terminal only."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from flow_platform.domain.inert import inert

STATUS_COLORS: Final = {
    "completed": "green",
    "failed": "red",
    "dead_letter": "red",
    "timeout": "red",
    "cancelled": "yellow",
    "cancelling": "yellow",
    "running": "cyan",
    "waiting": "cyan",
    "queued": "blue",
}


def say(text: str) -> None:
    """A line for people."""
    print(inert(text), file=sys.stderr, flush=True)  # noqa: T201


def emit(text: str) -> None:
    """A line of data: what executions wrote is in it, so nothing that a terminal obeys."""
    print(inert(text), flush=True)  # noqa: T201


def emit_json(value: Any) -> None:
    emit(json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None, default=str))


def show_error(message: str, hint: str = "", details: Sequence[dict[str, Any]] = ()) -> None:
    first, *rest = message.splitlines() or [""]
    say(f"{paint('error:', 'red', sys.stderr)} {first}")
    for line in rest:
        say(f"       {line}")
    for detail in details:
        field, problem = str(detail.get("field", "")), str(detail.get("message", ""))
        if field not in message or problem.partition(", got ")[0] not in message:  # Else it is said already.
            say(f"       {field}: {problem}")
    if hint:
        say(f"{paint('hint:', 'yellow', sys.stderr)} {hint}")


def paint(text: str, color: str, stream: Any = None) -> str:
    """The text in a color, on a terminal."""
    codes = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "cyan": 36, "bold": 1, "dim": 2}
    stream = stream or sys.stdout
    return f"\033[{codes[color]}m{text}\033[0m" if stream.isatty() and color in codes else text


def show_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on a terminal; aligned plain lines, which `cut` and `awk` can read, elsewhere."""
    texts = [["" if cell is None else inert(str(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
        for row in texts:
            table.add_row(*(Text(cell, style=STATUS_COLORS.get(cell, "")) for cell in row))
        Console().print(table)
        return
    widths = [max(len(row[index]) for row in [list(columns), *texts]) for index in range(len(columns))]
    for row in [[column.upper() for column in columns], *texts]:
        emit("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def age(instant: datetime, now: datetime) -> str:
    """How long ago, in one unit."""
    seconds = max(0.0, (now - instant).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def milliseconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value / 1000:.2f} s" if value >= 1000 else f"{value:.1f} ms"


def compact(value: Any, limit: int = 200) -> str:
    """A JSON value on one line, cut when long."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"


def cell(value: Any, limit: int = 200) -> str:
    """The same for a table or a line of data: cut on a terminal, where it has to fit; whole for programs."""
    return compact(value, limit if sys.stdout.isatty() else sys.maxsize)
