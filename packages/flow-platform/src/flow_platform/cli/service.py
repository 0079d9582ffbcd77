"""`flow service`: published endpoints of components."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from flow_platform.cli import output
from flow_platform.cli.connection import Connection, with_connection
from flow_platform.cli.service_drafts import FIELDS, service_path, write_draft
from flow_platform.domain.errors import FlowError, InvalidInput

if TYPE_CHECKING:
    from flow_platform.cli.remote import Remote


class Action(StrEnum):
    LIST = "list"
    CREATE = "create"
    SHOW = "show"
    PUBLISH = "publish"
    CALL = "call"
    TOKEN = "token"  # noqa: S105 - a word.
    DELETE = "delete"


@with_connection
def service(
    connection: Connection,
    action: Annotated[Action, typer.Argument(help="What to do.")],
    target: Annotated[
        str | None,
        typer.Argument(help="The service's slug. publish: or a JSON file.", show_default=False),
    ] = None,
    endpoint: Annotated[str | None, typer.Argument(help="call: the endpoint's name.", show_default=False)] = None,
    given: Annotated[str, typer.Option("--input", "-i", help="call: JSON, @FILE, or -.", metavar="JSON")] = "{}",
    version: Annotated[int | None, typer.Option(help="call: of this version.", min=1, show_default=False)] = None,
    ring: Annotated[str, typer.Option(help="create: ring that its endpoints run in.", envvar="FLOW_RING")] = "dev",
    name: Annotated[str, typer.Option(help="create, token: a name, for people.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Lists, makes, shows, publishes, calls and deletes services, and makes their tokens."""
    from flow_platform.cli.remote import Remote

    if (target is None) != (action is Action.LIST):
        expected = "expected no slug" if action is Action.LIST else "expected a slug"
        raise FlowError(f"flow service {action.value}: {expected}", hint="flow service --help")
    if (endpoint is None) == (action is Action.CALL):
        expected = "expected the name of an endpoint" if action is Action.CALL else "expected one argument"
        raise FlowError(f"flow service {action.value}: {expected}", hint="flow service --help")
    with Remote(connection) as remote:
        slug = target or ""
        match action:
            case Action.LIST:
                _list(remote, as_json)
            case Action.CREATE:
                body = {"slug": slug, "name": name, "ring_id": remote.ring_id(ring)}
                _tell(remote.post("/services", body)[1], f"made {slug}, a draft", "id", as_json)
            case Action.SHOW:
                _show(remote.get(service_path(slug)), as_json)
            case Action.PUBLISH:
                _publish(remote, slug, as_json)
            case Action.CALL:
                _call(remote, slug, endpoint or "", given, version)
            case Action.TOKEN:
                made = remote.post(f"{service_path(slug)}/tokens", {"name": name or "cli"})[1]
                _tell(made, f"made a token of {slug}, until {made['expires_at']}", "token", as_json)
            case _:
                remote.delete(service_path(slug))
                output.say(f"deleted {slug}")


def _tell(document: dict[str, Any], done: str, result: str, as_json: bool) -> None:
    if as_json:
        output.emit_json(document)
        return
    output.say(done)
    output.emit(str(document[result]))


def _list(remote: Remote, as_json: bool) -> None:
    found = list(remote.pages("/services"))
    if as_json:
        output.emit_json(found)
        return
    rings = {ring_id: name for name, ring_id in remote.rings().items()}
    rows = [
        (one["slug"], one["name"], rings.get(one["ring_id"]), one["latest_version"] or "draft", one["base_path"])
        for one in found
    ]
    output.show_table(("service", "name", "ring", "version", "path"), rows)


def _show(service: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.emit_json(service)
        return
    versions = ", ".join(str(one["version"]) for one in service["versions"]) or "none"
    output.say(f"{service['slug']}: {service['base_path']}, published versions: {versions}")
    rows = [
        (
            one["name"],
            one["method"],
            one["path"],
            f"{one['component']['kind'].replace('_', '-')}s/{one['component']['slug']}",
            one["auth"],
        )
        for one in service["endpoints"]
    ]
    output.show_table(("endpoint", "method", "path", "component", "auth"), rows)


def _publish(remote: Remote, target: str, as_json: bool) -> None:
    """Of a file the draft is made what the file says, first."""
    slug = write_draft(remote, _read(Path(target))) if target.endswith(".json") else target
    status, published = remote.post(f"{service_path(slug)}/publish", {})
    if as_json:
        output.emit_json(published)
        return
    verb = "published" if status == 201 else "unchanged:"
    output.say(f"{verb} version {published['version']} of {slug}")
    output.emit(published["skills"]["service"]["base_path"])


def _read(path: Path) -> dict[str, Any]:
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(document, dict) or "slug" not in document:
        raise InvalidInput(f"{path}: expected an object with 'slug' and 'endpoints'")
    found = cast("dict[str, Any]", document)
    for name in found:
        if name not in FIELDS:
            raise InvalidInput(f"{path}: {name!r} is no field of a service: expected {', '.join(FIELDS)}")
    return found


def _call(remote: Remote, slug: str, endpoint: str, given: str, version: int | None) -> None:
    from flow_platform.cli.run import read_input

    arguments = read_input(given)
    if not isinstance(arguments, dict):
        raise InvalidInput(f"--input {output.compact(given, 80)!r}: expected an object of all arguments")
    service = remote.get(service_path(slug))
    at = service["base_path"] + (f"/v{version}" if version else "")
    handle = remote.submit(f"{at}/tools/{endpoint}", {"arguments": arguments})
    document = remote.status(handle["execution_id"], hold_seconds=60)
    while not document.status.is_terminal:
        document = remote.status(handle["execution_id"], hold_seconds=60)
    if document.error is not None:
        raise FlowError(
            f"{slug}/{endpoint} ended as {document.status.value!r}: {document.error.message}",
            hint=f"flow show {document.execution_id}",
        )
    output.emit_json(document.output)
