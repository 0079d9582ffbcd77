"""`flow workspace`: the workspaces of an organization."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from flow_platform.cli import output
from flow_platform.cli.connection import find_connection
from flow_platform.domain.errors import FlowError


class Action(StrEnum):
    LIST = "list"
    CREATE = "create"


def workspace(
    action: Annotated[Action, typer.Argument(help="What to do.")] = Action.LIST,
    name: Annotated[str | None, typer.Argument(help="create: name of the workspace.", show_default=False)] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    url: Annotated[str | None, typer.Option("--url", help="Address of the platform.", show_default=False)] = None,
    token: Annotated[str | None, typer.Option("--token", help="Credential.", show_default=False)] = None,
    org: Annotated[str | None, typer.Option("--org", help="Organization id.", show_default=False)] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Data folder of a platform that runs on this machine.")
    ] = None,
) -> None:
    """Lists the workspaces that the token reaches, or makes one."""
    from flow_platform.cli.remote import Remote

    if (name is None) == (action is Action.CREATE):
        expected = "expected its name" if name is None else "expected no name"
        raise FlowError(f"flow workspace {action.value}: {expected}", hint="flow workspace --help")
    with Remote(find_connection(url, token, org, data=data, in_workspace=False)) as remote:
        path = f"/api/v1/orgs/{remote.connection.org_id}/workspaces"
        if action is Action.CREATE:
            _show_made(remote.post(path, {"name": name})[1], as_json)
            return
        found: list[dict[str, Any]] = remote.get(path)["items"]
    if as_json:
        output.emit_json(found)
    else:
        output.show_table(("id", "name"), [(each["id"], each["name"]) for each in found])


def _show_made(made: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.emit_json(made)
        return
    output.say(f"made workspace {made['name']}; choose it with --workspace or FLOW_WORKSPACE")
    output.emit(made["id"])
