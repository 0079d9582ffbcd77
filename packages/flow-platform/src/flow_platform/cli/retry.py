"""`flow retry`: repeats executions, those named or all that a filter finds."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from flow_platform.cli import output
from flow_platform.cli.connection import Connection, with_connection
from flow_platform.cli.executions import (
    PREVIEW,
    ComponentOption,
    JsonOption,
    ParentOption,
    RingOption,
    confirm,
    filter_of,
)
from flow_platform.domain.errors import FlowError, InvalidInput

if TYPE_CHECKING:
    from flow_platform.cli.remote import Remote

STATUSES: Final = ("dead_letter", "failed", "timeout", "cancelled")

VersionOption = Annotated[
    str | None,
    typer.Option("--version", help="A number, or active; else the version that ran.", show_default=False),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@with_connection
def retry(
    connection: Connection,
    execution_ids: Annotated[list[str] | None, typer.Argument(metavar="ID...", show_default=False)] = None,
    status: Annotated[
        str | None, typer.Option("--status", help=f"One of {', '.join(STATUSES)}.", show_default=False)
    ] = None,
    component: ComponentOption = None,
    ring: RingOption = None,
    parent: ParentOption = None,
    version: VersionOption = None,
    given: Annotated[
        str | None,
        typer.Option("--input", "-i", help="Of one ID: instead of its input. JSON, @FILE, or -.", metavar="JSON"),
    ] = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Repeats executions that ended without a result: those named, or all that a filter finds, after a preview."""
    from flow_platform.cli.remote import Remote
    from flow_platform.cli.run import read_input

    by_filter = any((status, component, ring, parent))
    if bool(execution_ids) == by_filter:
        raise InvalidInput("expected either ids or a filter such as --status failed")
    if status is not None and status not in STATUSES:
        raise InvalidInput(f"--status {status!r}: expected one of {', '.join(STATUSES)}")
    if given is not None and len(execution_ids or ()) != 1:
        raise InvalidInput("--input is for one id")
    changed = {"version": parse_version(version)} if version else {}
    with Remote(connection) as remote:
        if by_filter:
            retry_matching(remote, filter_of(remote, status, component, ring, parent), changed, yes, as_json)
            return
        if given is not None:
            changed["input_data"] = read_input(given)
        retry_each(remote, execution_ids or [], changed, as_json)


def parse_version(text: str) -> int | str:
    """A version as the API takes it.

    Raises:
        InvalidInput: Neither a number nor `active`.
    """
    if text == "active":
        return text
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 2**31):
        raise InvalidInput(f"--version {text!r}: expected a number from 1, or active")
    return int(text)


def retry_each(remote: Remote, execution_ids: list[str], changed: dict[str, Any], as_json: bool) -> None:
    """Retries by id; one that cannot be retried does not keep the others from it.

    Raises:
        FlowError: Some were refused.
    """
    from flow_platform.cli.remote import Refused

    items: list[dict[str, Any]] = []
    refused: list[str] = []
    for execution_id in execution_ids:
        try:
            handle = remote.submit(f"/executions/{execution_id}/retry", changed)
        except Refused as error:
            refused.append(f"{execution_id}: {error.message}")
        else:
            items.append({"execution_id": execution_id, "retried_as_execution_id": handle["execution_id"]})
    _show(items, refused, as_json)


def retry_matching(remote: Remote, where: dict[str, Any], changed: dict[str, Any], yes: bool, as_json: bool) -> None:
    """Retries all that a filter finds, after a preview and a question, in as many calls as that takes.

    Raises:
        FlowError: Not confirmed, or some were refused.
    """
    body = {"filter": {name: value for name, value in where.items() if value is not None}, **changed}
    preview = remote.post("/executions/retry", {**body, "dry_run": True})[1]
    if not preview["items"]:
        output.say("nothing to retry")
        if as_json:
            output.emit_json([])
        return
    if not yes:
        shown = [remote.status(item["execution_id"]) for item in preview["items"][:PREVIEW]]
        count = str(preview["matched"])
        confirm("retry", shown, f"more than {count}" if preview["truncated"] else count)
    items: list[dict[str, Any]] = []
    refused: dict[str, str] = {}
    more = True
    while more:
        done = remote.post("/executions/retry", body)[1]
        items += done["items"]
        refused.update((one["execution_id"], f"{one['execution_id']}: {one['message']}") for one in done["refused"])
        if done["truncated"]:
            output.say(f"{len(items)} retried")
        more = bool(done["truncated"] and done["items"])  # Those that are refused match again.
    _show(items, list(refused.values()), as_json)


def _show(items: list[dict[str, Any]], refused: list[str], as_json: bool) -> None:
    if as_json:
        output.emit_json(items)
    elif items:
        rows = [(item["execution_id"], item["retried_as_execution_id"]) for item in items]
        output.show_table(("id", "retried as"), rows)
    if refused:
        sys.stdout.flush()
        raise FlowError("\n".join(refused))
