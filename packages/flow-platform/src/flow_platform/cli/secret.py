"""`flow secret`: values that components need and nobody reads back."""

from __future__ import annotations

import getpass
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from flow_platform.cli import output
from flow_platform.cli.connection import find_connection
from flow_platform.domain.errors import FlowError

MAX_INPUT: Final = 1 << 20  # Characters read from standard input: far more than any value may have.


class Action(StrEnum):
    SET = "set"
    LIST = "list"
    DELETE = "delete"
    ROTATE = "rotate"


def secret(
    action: Annotated[Action, typer.Argument(help="What to do.")],
    name: Annotated[str | None, typer.Argument(help="Name of the secret.", show_default=False)] = None,
    *,
    ring: Annotated[str | None, typer.Option(help="Of this ring alone.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    url: Annotated[str | None, typer.Option("--url", help="Address of the platform.", show_default=False)] = None,
    token: Annotated[str | None, typer.Option("--token", help="Credential.", show_default=False)] = None,
    org: Annotated[str | None, typer.Option("--org", help="Organization id.", show_default=False)] = None,
    workspace: Annotated[str | None, typer.Option("--workspace", help="Workspace id.", show_default=False)] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Data folder of a platform that runs on this machine.")
    ] = None,
) -> None:
    """Sets (value from standard input or a hidden prompt), lists and deletes secrets; rotates the master key."""
    from flow_platform.cli.remote import Remote

    if (name is None) == (action in (Action.SET, Action.DELETE)):
        expected = "expected its name" if name is None else "expected no name"
        raise FlowError(f"flow secret {action.value}: {expected}", hint="flow secret --help")
    if action is Action.ROTATE:
        _rotate(data)
        return
    with Remote(find_connection(url, token, org, workspace, data)) as remote:
        path = f"/secrets/{quote(name or '', safe='')}"
        match action:
            case Action.SET:
                ring_id = remote.ring_id(ring) if ring else None
                _tell(remote.put(path, {"value": _value(), "ring_id": ring_id}), ring, as_json)
            case Action.DELETE:
                remote.delete(path, ring_id=remote.ring_id(ring) if ring else None)
                output.say(f"deleted {name}" + (f" of ring {ring}" if ring else ""))
            case _:
                _list(remote.get("/secrets")["items"], remote.rings(), ring, as_json)


def _value() -> str:
    """Never from an argument: those are seen by every process of the machine, and kept by the shell."""
    if sys.stdin.isatty():
        return getpass.getpass("value: ")
    value = sys.stdin.read(MAX_INPUT)
    return value.removesuffix("\n").removesuffix("\r")


def _tell(secret: dict[str, Any], ring: str | None, as_json: bool) -> None:
    if as_json:
        output.emit_json(secret)
    else:
        output.say(f"set {secret['name']}" + (f" of ring {ring}" if ring else "") + f", version {secret['version']}")


def _list(secrets: list[dict[str, Any]], rings: dict[str, str], ring: str | None, as_json: bool) -> None:
    names = {ring_id: name for name, ring_id in rings.items()}
    shown = [each for each in secrets if ring is None or ring in (each["ring_id"], names.get(each["ring_id"]))]
    if as_json:
        output.emit_json(shown)
        return
    columns = ("name", "ring", "version", "set at", "by")
    output.show_table(
        columns,
        (
            (each["name"], names.get(each["ring_id"], ""), each["version"], each["created_at"], each["created_by"])
            for each in shown
        ),
    )


def _rotate(data: Path | None) -> None:
    from flow_platform.cli.master_key import rotate
    from flow_platform.settings import load_settings

    path = load_settings({"data_dir": data}).master_key_file
    assert path is not None  # noqa: S101 - the settings fill it in.
    count = rotate(path)
    output.say(f"{path} begins with a new master key; it holds {count}")
    output.say("restart the platform: it encrypts the data keys anew, and touches no value")
