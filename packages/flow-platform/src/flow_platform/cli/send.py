"""`flow send`: an event for a workflow that waits for it, or the answer to an approval."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from flow_platform.cli import output
from flow_platform.cli.connection import Connection, with_connection
from flow_platform.cli.executions import JsonOption
from flow_platform.cli.run import read_input
from flow_platform.domain.errors import FlowError, InvalidInput


@with_connection
def send(
    connection: Connection,
    execution_id: Annotated[str, typer.Argument(metavar="ID", help="Of the execution.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the event, or of the approval.")],
    given: Annotated[
        str | None, typer.Option("--input", "-i", help="The payload: JSON, @FILE, or - for stdin.", metavar="JSON")
    ] = None,
    approve: Annotated[bool, typer.Option("--approve", help="Answer an approval with yes.")] = False,
    reject: Annotated[bool, typer.Option("--reject", help="Answer an approval with no.")] = False,
    comment: Annotated[str, typer.Option(help="Goes with the answer.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Sends an event to an execution: to the wait that is open for it, else it is kept for the next one."""
    from flow_platform.cli.remote import Remote

    if [given is not None, approve, reject].count(True) > 1:
        raise InvalidInput("flow send: expected one of --input, --approve and --reject")
    is_answer = approve or reject
    if comment and not is_answer:
        raise InvalidInput(f"--comment {comment!r} goes with --approve or --reject")
    payload = {"approved": approve, "comment": comment} if is_answer else read_input(given or "null")
    with Remote(connection) as remote:
        sent = remote.submit(f"/executions/{quote(execution_id, safe='')}/events/{quote(name, safe='')}", payload)
    if is_answer and not sent["delivered"]:
        raise FlowError(
            f"{execution_id} does not ask for approval {name!r} now: the answer does not count",
            hint=f"flow show {execution_id} says what it waits for",
        )
    if as_json:
        output.emit_json(sent)
    elif sent["delivered"]:
        output.say(f"delivered: {execution_id} waited for {name!r}")
    else:
        output.say(f"kept: {execution_id} gets it when it waits for {name!r}")
