"""`flow dead-letter`: what used up all its attempts and was not retried by hand yet."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from flow_platform.cli import output
from flow_platform.cli.connection import Connection, with_connection
from flow_platform.cli.executions import ComponentOption, JsonOption, ParentOption, RingOption, filter_of
from flow_platform.cli.retry import VersionOption, YesOption, parse_version, retry_each, retry_matching
from flow_platform.domain.errors import InvalidInput

if TYPE_CHECKING:
    from flow_sdk.wire.execution import StatusDocument


class Action(StrEnum):
    LIST = "list"
    RETRY = "retry"


@with_connection
def dead_letter(
    connection: Connection,
    action: Annotated[Action, typer.Argument(help="What to do.")] = Action.LIST,
    execution_ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID...", help="retry: these.", show_default=False)
    ] = None,
    component: ComponentOption = None,
    ring: RingOption = None,
    parent: ParentOption = None,
    everything: Annotated[bool, typer.Option("--all", help="retry: all of them.")] = False,
    version: VersionOption = None,
    limit: Annotated[int, typer.Option(min=1, help="list: how many, newest first.")] = 20,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Lists dead letters, or retries them: those named, all, or all that a filter finds, after a preview."""
    from flow_platform.cli.remote import Remote

    by_filter = any((component, ring, parent))
    with Remote(connection) as remote:
        if action is Action.LIST:
            if execution_ids or everything or version:
                raise InvalidInput("flow dead-letter list: ids, --all and --version are for retry")
            where = filter_of(remote, "dead_letter", component, ring, parent)
            found = list(remote.executions(limit, retried="false", **where))
            if as_json:
                output.emit_json([document.model_dump(mode="json") for document in found])
            else:
                names = {ring_id: name for name, ring_id in remote.rings().items()}
                columns = ("id", "component", "ring", "attempts", "age", "last error")
                output.show_table(columns, [_row(document, names) for document in found])
            return
        if [bool(execution_ids), by_filter, everything].count(True) != 1:
            raise InvalidInput("flow dead-letter retry: expected ids, or --all, or a filter such as --component")
        changed = {"version": parse_version(version)} if version else {}
        if execution_ids:
            retry_each(remote, execution_ids, changed, as_json)
        else:
            where = filter_of(remote, "dead_letter", component, ring, parent)
            retry_matching(remote, where, changed, yes, as_json)


def _row(document: StatusDocument, rings: dict[str, str]) -> list[str]:
    from flow_platform.domain.clock import SystemClock

    component, error = document.component, document.error
    return [
        document.execution_id,
        f"{component.kind.path}/{component.slug or component.id} v{component.version}",
        rings.get(document.ring_id or "", document.ring_id or ""),
        str(document.attempt),
        output.age(document.finished_at or document.created_at, SystemClock().now()),
        output.cell(f"{error.type or error.code}: {error.message}" if error else "", 60),
    ]
