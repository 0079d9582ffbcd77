"""`flow token`: credentials for people and programs."""

from __future__ import annotations

from typing import Annotated

import typer

from flow_platform.cli import output
from flow_platform.cli.connection import Connection, claims_of, with_connection


@with_connection
def token(
    connection: Connection,
    role: Annotated[str, typer.Option(help="admin, builder, runner or viewer.")] = "admin",
    ttl: Annotated[int, typer.Option(min=60, help="Seconds that it is valid.")] = 3600,
    subject: Annotated[str | None, typer.Option(help="Whose it is, for the records.", show_default=False)] = None,
    api_key: Annotated[
        str | None, typer.Option("--api-key", help="Make an API key of this name instead.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With its claims, as JSON.")] = False,
) -> None:
    """Makes a token, or an API key, and prints it."""
    from flow_platform.cli.remote import Remote

    if api_key is not None:
        with Remote(connection) as remote:
            _, made_key = remote.post("/api-keys", {"name": api_key, "role": role, "ttl_seconds": ttl})
        if as_json:
            output.emit_json(made_key)
        else:
            output.emit(made_key["key"])
        return
    body = {
        "role": role,
        "ttl_seconds": ttl,
        "org_id": connection.org_id,
        "workspace_id": connection.workspace_id,
        "subject": subject,
    }
    with Remote(connection) as remote:
        _, answer = remote.post("/api/v1/auth/token", {name: value for name, value in body.items() if value})
    made = answer["token"]
    if as_json:
        output.emit_json({"token": made, "claims": claims_of(made)})
    else:
        output.emit(made)
