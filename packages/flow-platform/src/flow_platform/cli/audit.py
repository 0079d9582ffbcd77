"""`flow audit`: who changed what and who was refused; exports it, and checks that nothing was changed in it."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

from flow_platform.cli import output
from flow_platform.cli.connection import find_connection
from flow_platform.domain.audit import GENESIS, RETENTION, AuditEntry, verify_log
from flow_platform.domain.errors import Conflict, FlowError, InvalidInput

if TYPE_CHECKING:
    from flow_platform.cli.remote import Remote


class Shape(StrEnum):
    JSONL = "jsonl"
    CSV = "csv"


TIMEOUT_SECONDS: Final = 60.0


class Action(StrEnum):
    LIST = "list"
    EXPORT = "export"
    VERIFY = "verify"


def audit(
    action: Annotated[Action, typer.Argument(help="What to do.")] = Action.LIST,
    kind: Annotated[str | None, typer.Option(help="list: change, refusal or retention.", show_default=False)] = None,
    subject: Annotated[str | None, typer.Option(help="list: by whom.", show_default=False)] = None,
    since: Annotated[str | None, typer.Option(help="list: from that time on.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="list: how many, newest first.")] = 20,
    file: Annotated[
        Path | None, typer.Option("--file", help="verify: an export, instead of the log.", show_default=False)
    ] = None,
    expect: Annotated[
        str | None, typer.Option("--expect", help="verify: an entry that was noted, SEQUENCE:HASH.", show_default=False)
    ] = None,
    shape: Annotated[Shape, typer.Option("--format", help="export: of what it prints.")] = Shape.JSONL,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    url: Annotated[str | None, typer.Option("--url", help="Address of the platform.", show_default=False)] = None,
    token: Annotated[str | None, typer.Option("--token", help="Credential.", show_default=False)] = None,
    org: Annotated[str | None, typer.Option("--org", help="Organization id.", show_default=False)] = None,
    workspace: Annotated[str | None, typer.Option("--workspace", help="Workspace id.", show_default=False)] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Data folder of a platform that runs on this machine.")
    ] = None,
) -> None:
    """Lists the audit log of the organization, exports it as JSON lines, or verifies its chain of hashes."""
    from flow_platform.cli.remote import Remote

    if action is Action.VERIFY and file is not None:  # Which needs no platform.
        _verify(_parsed(_lines_of(file)), expect, None, as_json)
        return
    connection = find_connection(url, token, org, workspace, data)
    with Remote(connection) as remote:
        match action:
            case Action.EXPORT:
                with _exported(remote, shape) as (lines, _):
                    for line in lines:
                        sys.stdout.write(line + "\n")
            case Action.VERIFY:
                with _exported(remote, Shape.JSONL) as (lines, head):
                    _verify(_parsed(lines), expect, head, as_json)
            case _:
                path = f"/api/v1/orgs/{connection.org_id}/audit"
                items = remote.get(path, kind=kind, subject=subject, since=since, limit=limit)["items"]
                if as_json:
                    output.emit_json(items)
                else:
                    columns = ("#", "at", "kind", "subject", "action", "what")
                    output.show_table(columns, [_row(item) for item in items])


def _lines_of(file: Path) -> Generator[str]:
    try:
        with file.open(encoding="utf-8") as lines:
            yield from lines
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{str(file)!r} cannot be read: {error}") from error


@contextmanager
def _exported(remote: Remote, shape: Shape) -> Generator[tuple[Iterable[str], str | None]]:
    """The lines, and the newest entry as the platform names it."""
    import httpx

    connection = remote.connection
    headers = {"Authorization": f"Bearer {connection.token}"}
    url = f"{connection.base_url}/api/v1/orgs/{connection.org_id}/audit/export?format={shape.value}"
    try:
        with httpx.stream("GET", url, headers=headers, timeout=TIMEOUT_SECONDS, trust_env=False) as answer:
            if answer.status_code != 200:
                body: dict[str, Any] = json.loads(answer.read())
                raise FlowError(str(body.get("message")), code=str(body.get("code")))
            yield answer.iter_lines(), answer.headers.get("X-Audit-Head")
    except httpx.HTTPError as error:
        raise FlowError(f"the export was cut off: {error!r}") from error


def _parsed(lines: Iterable[str]) -> Generator[AuditEntry]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = cast("dict[str, Any]", json.loads(line))
            yield AuditEntry(found["org_id"], found["sequence"], found["text"], found["hash"])
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInput(f"line {number} is no entry of an audit log: {line[:80]!r}") from error


def _verify(entries: Iterable[AuditEntry], expect: str | None, head: str | None, as_json: bool) -> None:
    wanted = _expected(expect)
    met = wanted is None

    def watched() -> Generator[AuditEntry]:
        nonlocal met
        for entry in entries:
            met = met or (entry.sequence, entry.hash) == wanted
            yield entry

    removed, sequence, digest = verify_log(watched())
    newest = f"{sequence}:{digest}"
    if head is not None and head != newest:
        raise Conflict(f"the audit log ends with {newest}: expected {head}, its end is missing", code="audit_broken")
    if not met:
        why = "it was removed with those of its age" if wanted and wanted[0] <= removed else "what was noted is gone"
        raise Conflict(f"entry {expect!r} is not in the audit log: {why}", code="audit_broken")
    if as_json:
        output.emit_json({"entries": sequence - removed, "removed": removed, "head": newest})
        return
    output.say(f"{sequence - removed} entries, each follows on the one before")
    if removed:
        output.say(f"entries 1 to {removed} were removed when they were old enough, as the log says itself")
    output.say(f"note this elsewhere, and give it to --expect next time: {newest}")


def _expected(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    sequence, _, digest = text.partition(":")
    if not sequence.isdecimal() or len(digest) != len(GENESIS):
        raise InvalidInput(f"--expect {text!r}: expected SEQUENCE:HASH, as flow audit verify prints it")
    return int(sequence), digest


def _row(item: dict[str, Any]) -> list[str]:
    if item["kind"] == RETENTION:
        what = f"entries to {item['removed']['sequence']}"
        return [str(item["sequence"]), item["at"][:19], item["kind"], item["subject"], item["action"], what]
    is_change = item["kind"] == "change"
    target = " ".join(map(str, item.get("target", {}).values())) or _name_of(item.get("after"))
    what = target if is_change else f"{item['status']} {item['code']} x{item['count']}"
    return [str(item["sequence"]), item["at"][:19], item["kind"], item["subject"], item["action"], what]


def _name_of(made: Any) -> str:
    """What a new thing is called."""
    if not isinstance(made, dict):
        return ""
    found = cast("dict[str, Any]", made)
    return next((str(found[name]) for name in ("slug", "name", "id") if found.get(name)), "")
