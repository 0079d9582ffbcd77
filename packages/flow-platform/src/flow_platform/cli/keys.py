"""`flow keys`: API keys of programs, and the keys that sign tokens."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from flow_platform.cli import output
from flow_platform.cli.connection import Connection, with_connection
from flow_platform.domain.errors import FlowError

if TYPE_CHECKING:
    from flow_platform.cli.remote import Remote

SIGNING: Final = "/api/v1/auth/keys"


class Action(StrEnum):
    LIST = "list"
    CREATE = "create"
    REVOKE = "revoke"
    SIGNING = "signing"
    ROTATE = "rotate"


@with_connection
def keys(
    connection: Connection,
    action: Annotated[Action, typer.Argument(help="What to do.")] = Action.LIST,
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="[TARGET]...", help="create: a name. revoke: ids.", show_default=False)
    ] = None,
    role: Annotated[str, typer.Option(help="create: admin, builder, runner, viewer, or a custom role.")] = "runner",
    ttl: Annotated[
        int | None, typer.Option(min=60, help="create: seconds until its end; default 90 days.", show_default=False)
    ] = None,
    organization: Annotated[
        bool, typer.Option("--organization", help="Keys for the whole organization, instead of the workspace.")
    ] = False,
    retire_after: Annotated[
        int | None,
        typer.Option(
            "--retire-after",
            min=0,
            help="rotate: seconds that tokens of the keys before are believed; default: all their life.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Lists, makes and revokes API keys; lists the keys that sign tokens, and makes a new one to sign."""
    from flow_platform.cli.remote import Remote

    named = targets or []
    most = {Action.CREATE: 1, Action.REVOKE: None}.get(action, 0)
    if (most != 0 and not named) or (most is not None and len(named) > most):
        expected = {Action.CREATE: "one name", Action.REVOKE: "ids of keys"}.get(action, "nothing behind it")
        raise FlowError(f"flow keys {action.value}: expected {expected}, got {named!r}", hint="flow keys --help")
    path = f"/api/v1/orgs/{connection.org_id}/api-keys" if organization else "/api-keys"
    with Remote(connection) as remote:
        match action:
            case Action.CREATE:
                body = {"name": named[0], "role": role, "ttl_seconds": ttl}
                _, made = remote.post(path, {name: value for name, value in body.items() if value is not None})
                if as_json:
                    output.emit_json(made)
                else:
                    output.say(f"made {made['id']}, a {made['role']} until {made['expires_at']}; shown this once:")
                    output.emit(made["key"])
            case Action.REVOKE:
                for key_id in named:
                    remote.delete(f"{path}/{key_id}")
                    output.say(f"revoked {key_id}")
            case Action.LIST:
                _show_api_keys(remote.get(path)["items"], as_json)
            case _:
                _show_signing_keys(_signing_keys(remote, action, retire_after), as_json)


def _signing_keys(remote: Remote, action: Action, retire_after: int | None) -> list[dict[str, Any]]:
    if action is Action.SIGNING:
        return remote.get(SIGNING)["items"]
    body = {} if retire_after is None else {"retire_after_seconds": retire_after}
    return remote.post(SIGNING, body)[1]["items"]


def _show_api_keys(items: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        output.emit_json(items)
        return
    columns = ("id", "name", "role", "begins", "made by", "until", "last used")
    output.show_table(
        columns,
        [
            (
                *(key[name] for name in ("id", "name", "role", "prefix", "created_by")),
                key["expires_at"][:19],
                (key["last_used_at"] or "never")[:19],
            )
            for key in items
        ],
    )


def _show_signing_keys(items: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        output.emit_json(items)
    else:
        rows = [(key["kid"], key["created_at"], key["retired_at"] or "signs") for key in items]
        output.show_table(("key", "made", "believed until"), rows)
