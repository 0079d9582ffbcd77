"""`flow ps`, `show`, `events`, `cancel`: looking at executions, and ending them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

from flow_platform.cli import output
from flow_platform.cli.connection import Connection, with_connection
from flow_platform.domain.errors import FlowError, InvalidInput

if TYPE_CHECKING:
    from flow_platform.cli.remote import Remote
    from flow_sdk.wire.execution import StatusDocument

LIVE: Final = ("queued", "running", "waiting", "cancelling")
ENDED: Final = ("completed", "failed", "timeout", "dead_letter", "cancelled")
ISOLATIONS: Final = {"process": "process: none, a plain process of the runner's user"}
PREVIEW: Final = 20  # Rows of a preview; the rest is a number.

StatusOption = Annotated[
    str | None, typer.Option("--status", help=f"One of {', '.join((*LIVE, *ENDED))}.", show_default=False)
]
ComponentOption = Annotated[
    str | None, typer.Option("--component", help="Of this component only.", metavar="KIND/SLUG", show_default=False)
]
RingOption = Annotated[str | None, typer.Option("--ring", help="In this ring only.", show_default=False)]
ParentOption = Annotated[str | None, typer.Option("--parent", help="Started by this execution.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON.")]


@with_connection
def ps(
    connection: Connection,
    status: StatusOption = None,
    component: ComponentOption = None,
    ring: RingOption = None,
    parent: ParentOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Lists executions, newest first."""
    from flow_platform.cli.remote import Remote

    with Remote(connection) as remote:
        found = list(remote.executions(limit, **filter_of(remote, status, component, ring, parent)))
    if as_json:
        output.emit_json([document.model_dump(mode="json") for document in found])
    else:
        _show(found)


@with_connection
def show(
    connection: Connection,
    execution_id: Annotated[str, typer.Argument(metavar="ID")],
    tree: Annotated[bool, typer.Option("--tree", help="With everything that it started.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Shows one execution: status, times, attempts, errors, output."""
    from flow_platform.cli.remote import Remote

    with Remote(connection) as remote:
        document = remote.status(execution_id)
        below = remote.get(f"/executions/{execution_id}/tree") if tree else None
    if as_json:
        output.emit_json(below if tree else document.model_dump(mode="json"))
        return
    output.show_table(("field", "value"), _fields(document))
    for error in document.errors:
        node = next((f"{one['field']}, " for one in error.details if "node" in one), "")
        output.emit(f"\n{node}attempt {error.attempt}: {error.code}: {error.message}")
        if error.traceback:
            output.emit(error.traceback.rstrip())
    if below:
        output.emit("")
        _show_tree(below, 0)


@with_connection
def events(
    connection: Connection,
    execution_id: Annotated[str, typer.Argument(metavar="ID")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the execution ends.")] = False,
    after: Annotated[int, typer.Option(min=0, help="Begin behind this position.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Prints the events of an execution: its messages, progress and log lines."""
    from flow_platform.cli.remote import Remote
    from flow_platform.cli.run import event_line

    with Remote(connection) as remote:
        for event in remote.events(execution_id, after, follow=follow):
            output.emit(event.model_dump_json() if as_json else event_line(event, output.cell))


@with_connection
def cancel(
    connection: Connection,
    execution_ids: Annotated[list[str] | None, typer.Argument(metavar="ID...", show_default=False)] = None,
    status: StatusOption = None,
    component: ComponentOption = None,
    ring: RingOption = None,
    parent: ParentOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Cancels executions: those named, or all that a filter finds, after a preview."""
    from flow_platform.cli.remote import Remote

    by_filter = any((status, component, ring, parent))
    if bool(execution_ids) == by_filter:
        raise InvalidInput("expected either ids or a filter such as --status running")
    with Remote(connection) as remote:
        if by_filter:
            chosen = _chosen(remote, status, component, ring, parent)
            if not chosen:
                output.say("nothing to cancel")
                return
            _confirm(chosen, yes=yes)
            execution_ids = [document.execution_id for document in chosen]
        cancelled, refused = _cancel_each(remote, execution_ids or [])
    if as_json:
        output.emit_json([document.model_dump(mode="json") for document in cancelled])
    elif cancelled:
        _show(cancelled)
    if refused:
        raise FlowError("\n".join(refused))


def _cancel_each(remote: Remote, execution_ids: list[str]) -> tuple[list[StatusDocument], list[str]]:
    """One that cannot be cancelled does not keep the others alive."""
    from flow_platform.cli.remote import Refused

    cancelled: list[StatusDocument] = []
    refused: list[str] = []
    for execution_id in execution_ids:
        try:
            cancelled.append(remote.cancel(execution_id))
        except Refused as error:
            refused.append(f"{execution_id}: {error.message}")
    return cancelled, refused


def _chosen(
    remote: Remote, status: str | None, component: str | None, ring: str | None, parent: str | None
) -> list[StatusDocument]:
    if status in ENDED:
        raise InvalidInput(f"--status {status} has ended; expected one of {', '.join(LIVE)}")
    chosen: list[StatusDocument] = []
    for one in (status,) if status else LIVE:
        chosen += remote.executions(**filter_of(remote, one, component, ring, parent))
    return chosen


def _confirm(chosen: list[StatusDocument], *, yes: bool) -> None:
    if not yes:
        confirm("cancel", chosen[:PREVIEW], str(len(chosen)))


def confirm(verb: str, shown: list[StatusDocument], count: str) -> None:
    """Shows the first ones, and asks.

    Args:
        count: Of all, perhaps with a word such as "more than".

    Raises:
        FlowError: There is nobody to ask.
    """
    for document in shown:
        output.say("  ".join(_row(document)))
    if count != str(len(shown)):
        output.say(f"... and more: {count} in all")
    question = f"{verb} {count} execution{'' if count == '1' else 's'}"
    if not sys.stdin.isatty():
        raise FlowError(f"{question}: not confirmed", hint="say --yes")
    typer.confirm(f"{question}?", abort=True, err=True)


def filter_of(
    remote: Remote, status: str | None, component: str | None, ring: str | None, parent: str | None
) -> dict[str, Any]:
    """The options as parameters of the API, with ids.

    Raises:
        InvalidInput: The status is none.
    """
    from flow_platform.cli.run import parse_component

    if status is not None and status not in (*LIVE, *ENDED):
        raise InvalidInput(f"--status {status!r}: expected one of {', '.join((*LIVE, *ENDED))}")
    component_id = None
    if component:
        kind, slug = parse_component(component)
        component_id = remote.get(f"/{kind}/{slug}")["id"]
    return {
        "status": status,
        "component_id": component_id,
        "ring_id": remote.ring_id(ring) if ring else None,
        "parent_id": parent,
    }


def _show(documents: list[StatusDocument]) -> None:
    output.show_table(("id", "status", "component", "age", "ran", "what"), [_row(document) for document in documents])


def _row(document: StatusDocument) -> list[str]:
    from flow_platform.domain.clock import SystemClock

    component = document.component
    what = (document.waiting_on and document.waiting_on.message) or (document.error and document.error.message) or ""
    return [
        document.execution_id,
        document.status.value,
        f"{component.kind.path}/{component.slug or component.id} v{component.version}",
        output.age(document.created_at, SystemClock().now()),
        output.milliseconds(document.metrics.run_ms),
        output.cell(what, 60),
    ]


def _fields(document: StatusDocument) -> list[tuple[str, Any]]:
    metrics, component, waiting = document.metrics, document.component, document.waiting_on
    rows: list[tuple[str, Any]] = [
        ("execution", document.execution_id),
        ("status", document.status.value),
        ("waits for", waiting and (waiting.message or waiting.reason)),
        ("component", f"{component.kind.path}/{component.slug or component.id} v{component.version}"),
        ("deployment", document.deployment_id),
        ("ring", document.ring_id),
        ("isolation", ISOLATIONS.get(document.isolation, document.isolation.value)),
        ("parent", document.parent_execution_id),
        ("retry of", document.retry_of_execution_id),
        ("retried as", document.retried_as_execution_id),
        ("attempt", f"{document.attempt} of at most {document.max_attempts}" if document.attempt else None),
        ("created", document.created_at),
        ("started", document.started_at),
        ("finished", document.finished_at),
        ("deadline", document.deadline_at),
        ("queued", output.milliseconds(metrics.queue_ms)),
        ("start", output.milliseconds(metrics.start_ms)),
        ("run", output.milliseconds(metrics.run_ms)),
        ("cpu", output.milliseconds(metrics.cpu_ms)),
        ("memory", f"{metrics.max_rss_bytes / (1 << 20):.1f} MiB" if metrics.max_rss_bytes else None),
        ("output", output.cell(document.output, 2000) if document.output is not None else None),
    ]
    return [(name, value) for name, value in rows if value not in (None, "")]


def _show_tree(node: dict[str, Any], depth: int) -> None:
    from flow_sdk.wire.execution import StatusDocument

    output.emit("  " * depth + "  ".join(_row(StatusDocument.model_validate(node["execution"]))))
    for child in cast("list[dict[str, Any]]", node.get("children") or []):
        _show_tree(child, depth + 1)
