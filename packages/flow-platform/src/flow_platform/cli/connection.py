"""How a command finds the platform it talks to: options, then `FLOW_*` variables, then the one running on this data."""

from __future__ import annotations

import base64
import binascii
import contextlib
import functools
import inspect
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, cast

import typer

from flow_platform.cli.data_folder import READY_FILE, TOKEN_FILE
from flow_platform.domain.errors import FlowError, SettingsError

DEFAULT_DATA: Final = ".flow"

_OPTIONS: Final[Mapping[str, Any]] = {
    "url": Annotated[str | None, typer.Option("--url", help="Address of the platform.", show_default=False)],
    "token": Annotated[str | None, typer.Option("--token", help="Credential.", show_default=False)],
    "org": Annotated[str | None, typer.Option("--org", help="Organization id.", show_default=False)],
    "workspace": Annotated[str | None, typer.Option("--workspace", help="Workspace id.", show_default=False)],
    "data": Annotated[Path | None, typer.Option("--data", help="Data folder of a platform that runs on this machine.")],
}


@dataclass(frozen=True)
class Connection:
    base_url: str
    token: str
    org_id: str
    workspace_id: str

    @property
    def workspace_path(self) -> str:
        return f"/api/v1/orgs/{self.org_id}/workspaces/{self.workspace_id}"


def with_connection(command: Callable[..., None]) -> Callable[..., None]:
    """Replaces the parameter `connection` of a command by the options that find one."""
    signature = inspect.signature(command, eval_str=True)
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in _OPTIONS.items()
    ]
    own = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in signature.parameters.items()
        if name != "connection"
    ]

    @functools.wraps(command)
    def wrapped(**arguments: Any) -> None:
        found = find_connection(**{name: arguments.pop(name) for name in _OPTIONS})
        command(connection=found, **arguments)

    wrapped.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *options]}
    return wrapped


def find_connection(
    url: str | None = None,
    token: str | None = None,
    org: str | None = None,
    workspace: str | None = None,
    data: Path | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    in_workspace: bool = True,
) -> Connection:
    """Puts a connection together.

    Args:
        in_workspace: A workspace is needed; else it is empty where none is named.

    Raises:
        FlowError: No platform runs here, or part of the connection is unknown.
    """
    from flow_platform.settings import unknown_variables

    environ = os.environ if environ is None else environ
    if problems := unknown_variables(environ):
        raise SettingsError("\n".join(problems))
    url = url or environ.get("FLOW_URL")
    token = token or environ.get("FLOW_TOKEN")
    org = org or environ.get("FLOW_ORG")
    workspace = workspace or environ.get("FLOW_WORKSPACE")
    if not url:
        folder = (data or Path(environ.get("FLOW_DATA_DIR") or DEFAULT_DATA)).absolute()
        running = _running(folder)
        url, token = running["base_url"], token or running["token"]
        org, workspace = org or running["org_id"], workspace or running["workspace_id"]
    if not token:
        raise FlowError(f"no token for {url}", hint="give --token or FLOW_TOKEN; flow token makes one")
    claims = claims_of(token)
    org, workspace = org or claims.get("org"), workspace or claims.get("ws")
    if not org or (not workspace and in_workspace):
        org, workspace = _reached(url.rstrip("/"), token, org, in_workspace=in_workspace)
    return Connection(url.rstrip("/"), token, org, workspace or "")


def _reached(url: str, token: str, org: str | None, *, in_workspace: bool) -> tuple[str, str]:
    """Organization and workspace of a token that does not name them, from the platform: when there is only one.

    Raises:
        FlowError: There are several, or none.
    """
    from flow_platform.cli.remote import Remote

    with Remote(Connection(url, token, "", "")) as remote:
        identity = remote.get("/api/v1/auth/whoami")
    workspaces: list[dict[str, str]] = identity["workspaces"]
    if org not in (None, identity["org_id"]):
        raise FlowError(f"the token is not one of the organization {org!r}", hint="give --org or FLOW_ORG its own")
    if not in_workspace:
        return identity["org_id"], ""
    if len(workspaces) != 1:
        named = ", ".join(f"{each['id']} ({each['name']})" for each in workspaces) or "none"
        raise FlowError(
            f"the token reaches {len(workspaces)} workspaces: {named}",
            hint="choose one with --workspace or FLOW_WORKSPACE",
        )
    return identity["org_id"], workspaces[0]["id"]


def _running(folder: Path) -> dict[str, str]:
    """The platform that runs over a data folder, with the newest token: a long run outlives the first one."""
    try:
        document = json.loads((folder / READY_FILE).read_text())
        os.kill(int(document["pid"]), 0)
    except PermissionError:
        raise FlowError(f"the data folder {str(folder)!r} is another user's") from None
    except (OSError, ValueError, LookupError):
        raise FlowError(
            f"no platform runs over the data folder {str(folder)!r}",
            hint="start it with: flow up   (or name another one with --data or --url)",
        ) from None
    with contextlib.suppress(OSError):
        document["token"] = (folder / TOKEN_FILE).read_text().strip() or document["token"]
    return document


def claims_of(token: str) -> dict[str, Any]:
    """The claims of a JWT, unverified: only to find out whose it is. The platform verifies it."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error):
        return {}
    return cast("dict[str, Any]", claims) if isinstance(claims, dict) else {}
