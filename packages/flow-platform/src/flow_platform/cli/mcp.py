"""`flow mcp`: MCP servers whose tools agents call."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flow_platform.cli import output
from flow_platform.cli.connection import Connection, with_connection
from flow_platform.domain.errors import FlowError, InvalidInput

if TYPE_CHECKING:
    from flow_platform.cli.remote import Remote

Words = list[str]


class Action(StrEnum):
    ADD = "add"
    LIST = "list"
    SHOW = "show"
    REFRESH = "refresh"
    CALL = "call"
    REMOVE = "remove"


def _add(flag: str, said: str, **bounds: Any) -> Any:
    """An option of `flow mcp add`."""
    return typer.Option(flag, help=f"add: {said}", show_default=False, **bounds)


@with_connection
def mcp(
    connection: Connection,
    action: Annotated[Action, typer.Argument(help="What to do.")],
    name: Annotated[str | None, typer.Argument(help="The server's name.", show_default=False)] = None,
    words: Annotated[
        Words | None,
        typer.Argument(
            metavar="[TOOL | -- COMMAND...]",
            help="call: the tool. add: a program and its arguments, behind --.",
            show_default=False,
        ),
    ] = None,
    http: Annotated[str | None, _add("--http", "the server's address.")] = None,
    header: Annotated[Words | None, _add("--header", "'NAME: VALUE'.")] = None,
    package: Annotated[Words | None, _add("--package", "a package that COMMAND needs.")] = None,
    env: Annotated[Words | None, _add("--env", "NAME=VALUE, a variable of COMMAND.")] = None,
    secret: Annotated[Words | None, _add("--secret", "a secret that is a variable of COMMAND.")] = None,
    network: Annotated[Words | None, _add("--network", "a host that COMMAND may connect to.")] = None,
    timeout: Annotated[float, typer.Option("--timeout", help="add: seconds for one answer.", min=0.1)] = 60.0,
    memory_mb: Annotated[int | None, _add("--memory-mb", "memory of a call's container.", min=16)] = None,
    isolation: Annotated[str | None, _add("--isolation", "of a call's container.")] = None,
    given: Annotated[str, typer.Option("--input", "-i", help="call: JSON, @FILE, or -.", metavar="JSON")] = "{}",
    ring: Annotated[str, typer.Option(help="add, refresh, call: in this ring.", envvar="FLOW_RING")] = "dev",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Registers MCP servers, lists and refreshes their tools, calls and removes them."""
    from flow_platform.cli.remote import Remote

    _check(action, name, words)
    with Remote(connection) as remote:
        named = name or ""
        match action:
            case Action.LIST:
                _list(remote, as_json)
            case Action.ADD:
                body: dict[str, Any] = {
                    "name": named,
                    "url": http,
                    "headers": dict(_pair("--header", each, ":") for each in header or ()),
                    "command": words or [],
                    "packages": package or [],
                    "env": dict(_pair("--env", each, "=") for each in env or ()),
                    "secrets": secret or [],
                    "network": network or [],
                    "timeout_seconds": timeout,
                    "memory_bytes": None if memory_mb is None else memory_mb << 20,
                    "isolation": isolation,
                    "ring_id": remote.ring_id(ring),
                }
                _tell(_added(remote, named, body), as_json)
            case Action.SHOW:
                _show(remote.get(_path(named)), as_json)
            case Action.REFRESH:
                _tell(_long(remote, f"{_path(named)}/refresh", {"ring_id": remote.ring_id(ring)}), as_json)
            case Action.CALL:
                _call(remote, named, (words or [""])[0], given, ring)
            case _:
                remote.delete(_path(named))
                output.say(f"removed {named}")


def _check(action: Action, name: str | None, words: Words | None) -> None:
    if (name is None) != (action is Action.LIST):
        expected = "expected no name" if action is Action.LIST else "expected the server's name"
        raise FlowError(f"flow mcp {action.value}: {expected}", hint="flow mcp --help")
    if action is Action.CALL and len(words or ()) != 1:
        raise FlowError("flow mcp call: expected the name of one tool", hint="flow mcp show SERVER lists them")
    if words and action not in (Action.CALL, Action.ADD):
        raise FlowError(f"flow mcp {action.value}: expected one argument", hint="flow mcp --help")


def _path(name: str) -> str:
    from flow_sdk.executions import segment

    return f"/mcp-servers/{segment('MCP server', name)}"


def _pair(option: str, text: str, separator: str) -> tuple[str, str]:
    name, found, value = text.partition(separator)
    if not found:
        raise InvalidInput(f"{option} {text!r}: expected NAME{separator}VALUE")
    return name.strip(), value.strip() if separator == ":" else value


def _long(remote: Remote, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Answered when the server was asked, and its packages are there."""
    from flow_platform.cli.remote import PUBLISH_TIMEOUT_SECONDS

    return remote.post(path, body, PUBLISH_TIMEOUT_SECONDS)[1]


def _added(remote: Remote, name: str, body: dict[str, Any]) -> dict[str, Any]:
    """A server of the name has these settings from now on."""
    from flow_platform.cli.remote import PUBLISH_TIMEOUT_SECONDS

    if any(each["name"] == name for each in remote.get("/mcp-servers")["items"]):
        return remote.put(_path(name), body, PUBLISH_TIMEOUT_SECONDS)
    return _long(remote, "/mcp-servers", body)


def _tell(server: dict[str, Any], as_json: bool) -> None:
    """What was asked for, and how it went.

    Raises:
        FlowError: The server did not tell of its tools.
    """
    if as_json:
        output.emit_json(server)
    error, name = server["error"], server["name"]
    if error is not None:
        raise FlowError(
            f"MCP server {name!r} is registered, but its tools are not known: {error['code']}: {error['message']}",
            hint=f"when that is mended: flow mcp refresh {name}",
        )
    if as_json:
        return
    told = " ".join(str(server["server"].get(word) or "") for word in ("name", "version")).strip()
    count = server["tool_count"]
    output.say(f"{name}: {told or 'a server'}, {count} tool{'' if count == 1 else 's'}")
    for word, sign in (("added", "+"), ("changed", "~"), ("removed", "-")):
        for tool in server["changes"][word]:
            output.say(f"{sign} {tool}")
    if server["changes"]["changed"] or server["changes"]["removed"]:
        output.say("agents that have them keep what they were published with until they are published again")


def _list(remote: Remote, as_json: bool) -> None:
    found = remote.get("/mcp-servers")["items"]
    if as_json:
        output.emit_json(found)
        return
    rows = [
        (
            one["name"],
            one["url"] or " ".join(" ".join(one["command"]).split())[:60],
            one["tool_count"],
            one["refreshed_at"],
            one["error"]["code"] if one["error"] else "",
        )
        for one in found
    ]
    output.show_table(("server", "reached by", "tools", "refreshed at", "error"), rows)


def _show(server: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.emit_json(server)
        return
    if server["error"] is not None:
        output.say(f"the last time its tools were asked for: {server['error']['code']}: {server['error']['message']}")
    rows = [
        (
            f"mcp:{server['name']}/{tool['name']}",
            tool["agent_name"],
            tool["problem"] or output.cell(tool["description"] or tool["title"], 80),
        )
        for tool in server["tools"]
    ]
    output.show_table(("tool", "as models see it", "description"), rows)


def _call(remote: Remote, name: str, tool: str, given: str, ring: str) -> None:
    from flow_platform.cli.run import read_input

    arguments = read_input(given)
    if not isinstance(arguments, dict):
        raise InvalidInput(f"--input {output.compact(given, 80)!r}: expected an object of all arguments")
    body: dict[str, Any] = {"tool": tool, "arguments": arguments, "ring_id": remote.ring_id(ring)}
    handle = remote.submit(f"{_path(name)}/calls", body)
    document = remote.status(handle["execution_id"], hold_seconds=60)
    while not document.status.is_terminal:
        document = remote.status(handle["execution_id"], hold_seconds=60)
    if document.error is not None:
        raise FlowError(
            f"{name}/{tool} ended as {document.status.value!r}: {document.error.code}: {document.error.message}",
            hint=f"flow show {document.execution_id}",
        )
    output.emit_json(document.output)
