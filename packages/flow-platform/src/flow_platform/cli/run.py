"""`flow run`: one execution from submit to output."""

from __future__ import annotations

import contextlib
import difflib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

from flow_platform.cli import output
from flow_platform.cli.connection import Connection, with_connection
from flow_platform.cli.costs import credits_text
from flow_platform.cli.duration import parse_duration
from flow_platform.domain.errors import FlowError, InvalidInput
from flow_sdk.wire.status import Status

if TYPE_CHECKING:
    from flow_platform.cli.remote import Remote
    from flow_sdk.wire.execution import EventDocument, StatusDocument

KINDS: Final = ("code-blocks", "transforms", "workflows", "agents")
FIRST_HOLD_SECONDS: Final = 1.0  # The first words come soon; after that, only the end is of interest.
HOLD_SECONDS: Final = 20.0  # Shorter than the time-out of a request.
NAMES_SHOWN: Final = 10
NAMES_READ: Final = 1_000  # Among which one is looked for that was meant.
JSON_HINT: Final = """expected JSON, for example --input '{"name": "value"}', or @FILE"""


@with_connection
def run(
    connection: Connection,
    component: Annotated[str, typer.Argument(help="KIND/SLUG, for example code-blocks/slug.", metavar="KIND/SLUG")],
    given: Annotated[str, typer.Option("--input", "-i", help="JSON, @FILE, or - for stdin.", metavar="JSON")] = "{}",
    ring: Annotated[str, typer.Option(help="Ring to run in.", envvar="FLOW_RING")] = "dev",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show events and logs as they come.")] = False,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds to its end, at most; default: as declared.", min=0.1)
    ] = None,
    delay: Annotated[str | None, typer.Option(help="Start it that much later, e.g. 10m.", show_default=False)] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Print the execution's id and do not wait.")] = False,
) -> None:
    """Runs a component, and prints its output as JSON on stdout. Exits with 0 only when it completed."""
    from flow_platform.cli.remote import Remote

    kind, slug = parse_component(component)
    value = read_input(given)
    delay_seconds = None if delay is None else parse_duration("--delay", delay)
    with Remote(connection) as remote:
        execution_id = submit(remote, kind, slug, value, remote.ring_id(ring), timeout, delay_seconds)
        if detach:
            output.emit(execution_id)
            return
        try:
            output.say(f"execution {execution_id}")
            if follow:
                for event in remote.events(execution_id):
                    output.say(event_line(event))
            document = wait(remote, execution_id)
        except KeyboardInterrupt:
            output.say(f"it goes on; look with flow show {execution_id}, end it with flow cancel {execution_id}")
            raise
    show_result(document)


def parse_component(text: str) -> tuple[str, str]:
    """Splits KIND/SLUG; the kind may be written in the singular, and with `_`.

    Raises:
        InvalidInput: It is not of that form.
    """
    kind, slash, slug = text.partition("/")
    plural = kind.replace("_", "-").removesuffix("s") + "s"
    if not slash or not slug or plural not in KINDS:
        raise InvalidInput(f"{text!r} is not KIND/SLUG: expected a kind of {', '.join(KINDS)}, then the slug or id")
    return plural, slug


def read_input(text: str) -> Any:
    """Reads JSON, or `@FILE`, or `-` for stdin.

    Raises:
        InvalidInput: There is no such file, or it is not JSON; with the place.
    """
    source = "--input"
    if text == "-":
        source, text = "stdin", sys.stdin.read()
    elif text.startswith("@"):
        source = text[1:]
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise InvalidInput(f"--input @{source}: cannot be read: {reason}") from error
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise InvalidInput(f"{source} is not JSON: {error}: {output.compact(text, 80)!r}", hint=JSON_HINT) from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def submit(
    remote: Remote,
    kind: str,
    slug: str,
    value: Any,
    ring_id: str,
    timeout: float | None,
    delay_seconds: float | None = None,
) -> str:
    """Submits one execution and returns its id. Without a timeout the component's own counts.

    `PlatformClient` is not used: its contract always sends a timeout.
    """
    from flow_sdk.executions import segment

    body: dict[str, Any] = {"input_parameters" if kind == "code-blocks" else "input_data": value, "ring_id": ring_id}
    if timeout is not None:
        body["timeout_seconds"] = timeout
    if delay_seconds is not None:
        body["delay_seconds"] = delay_seconds
    try:
        return str(remote.submit(f"/{kind}/{segment('component', slug)}/executions", body)["execution_id"])
    except FlowError as error:
        if error.error_code == "not_found":
            with contextlib.suppress(FlowError):  # Not every role may list them.
                error.hint = _published(remote, kind, slug)
        raise


def _published(remote: Remote, kind: str, slug: str) -> str:
    """What there is instead of a component that there is not."""
    names = [str(component["slug"]) for component in remote.pages(f"/{kind}", NAMES_READ)]
    if close := difflib.get_close_matches(slug, names, 1):
        return f"did you mean {kind}/{close[0]}?"
    if not names:
        return f"there are no {kind} yet: flow publish FILE publishes what a file declares"
    more = ", ..." if len(names) > NAMES_SHOWN else ""
    return f"published {kind}: {', '.join(names[:NAMES_SHOWN])}{more}"


def wait(remote: Remote, execution_id: str) -> StatusDocument:
    """Waits for the end, and says what it waits for meanwhile, once per change."""
    said = ""
    hold = FIRST_HOLD_SECONDS
    while True:
        document = remote.status(execution_id, hold)
        if document.status.is_terminal:
            return document
        waiting = document.waiting_on.message if document.waiting_on else ""
        line = f"{document.status}: {waiting}" if waiting else str(document.status)
        if line != said:
            output.say(line)
            said = line
        hold = HOLD_SECONDS


def event_line(event: EventDocument, shown: Callable[[Any], str] = output.compact) -> str:
    """One event on one line, with its time.

    Args:
        shown: Puts data that has no form of its own on one line.
    """
    instant = event.timestamp.strftime("%H:%M:%S.%f")[:-3]
    data: Any = event.event_data
    if event.event_type == "log" and isinstance(data, dict):
        log = cast("dict[str, Any]", data)
        return f"{instant} {log.get('stream', 'log')}: {str(log.get('text') or log.get('data') or '').rstrip()}"
    if event.event_type == "replay_mismatch" and isinstance(data, dict):
        return f"{instant} {event.event_type}: {cast('dict[str, Any]', data).get('message')}"
    return f"{instant} {event.event_type}: {shown(event.event_data)}"


def show_result(document: StatusDocument) -> None:
    """Prints the output, or what went wrong.

    Raises:
        FlowError: It did not complete.
    """
    metrics = document.metrics
    measured = (("queued", metrics.queue_ms), ("start", metrics.start_ms), ("run", metrics.run_ms))
    times = ", ".join(f"{word} {output.milliseconds(value)}" for word, value in measured if value is not None)
    if document.billing and document.billing.credits is not None:
        times += f"{', ' if times else ''}{credits_text(document.billing.credits)} credits"
    status = document.status.value
    output.say(f"{output.paint(status, output.STATUS_COLORS[status], sys.stderr)}{f' ({times})' if times else ''}")
    if document.status is Status.COMPLETED:
        output.emit_json(document.output)
        return
    hint = f"flow show {document.execution_id} has the whole record"
    error = document.error
    if error is None:
        raise FlowError(f"the execution ended as {status}", hint=hint)
    if error.traceback:
        output.say(error.traceback.rstrip())
    if error.type == ModuleNotFoundError.__name__:
        hint = "name its package in dependencies=[...] of the component, and publish it again"
    raise FlowError(f"{error.type}: {error.message}" if error.type else error.message, details=error.details, hint=hint)
