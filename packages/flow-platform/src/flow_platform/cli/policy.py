"""`flow policy`: what limits, orders and repeats the executions of components in rings."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from flow_platform.cli import output
from flow_platform.cli.connection import find_connection
from flow_platform.domain.errors import FlowError, InvalidInput

if TYPE_CHECKING:
    from flow_platform.cli.remote import Remote

_RATE: Final = re.compile(r"(\d{1,7})/(\d{1,7}(?:\.\d{1,3})?)(?:,(\d{1,7}))?")
SHOWN: Final = ("concurrency", "concurrency_per_key", "rate", "priority", "max_queued", "weight", "retry")


class Action(StrEnum):
    LIST = "list"
    SET = "set"
    DELETE = "delete"


def policy(
    action: Annotated[Action, typer.Argument(help="What to do.")],
    *,
    component: Annotated[
        str | None, typer.Option(help="Of this component.", metavar="KIND/SLUG", show_default=False)
    ] = None,
    ring: Annotated[str | None, typer.Option(help="In this ring.", show_default=False)] = None,
    concurrency: Annotated[int | None, typer.Option(min=0, help="Running at once.", show_default=False)] = None,
    concurrency_per_key: Annotated[
        int | None, typer.Option(min=0, help="Running at once per concurrency key.", show_default=False)
    ] = None,
    rate: Annotated[
        str | None, typer.Option(help="Starts per seconds, and burst.", metavar="COUNT/SECONDS[,BURST]")
    ] = None,
    priority: Annotated[int | None, typer.Option(help="Added to that of each new one.", show_default=False)] = None,
    max_attempts: Annotated[
        int | None, typer.Option(min=1, help="Retry policy of new ones: attempts.", show_default=False)
    ] = None,
    retry_interval: Annotated[
        float | None, typer.Option(min=0, help="Seconds before the second attempt.", show_default=False)
    ] = None,
    max_queued: Annotated[int | None, typer.Option(min=0, help="Waiting at once.", show_default=False)] = None,
    weight: Annotated[
        int | None, typer.Option(min=1, help="Share beside other workspaces.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    url: Annotated[str | None, typer.Option("--url", help="Address of the platform.", show_default=False)] = None,
    token: Annotated[str | None, typer.Option("--token", help="Credential.", show_default=False)] = None,
    org: Annotated[str | None, typer.Option("--org", help="Organization id.", show_default=False)] = None,
    workspace: Annotated[str | None, typer.Option("--workspace", help="Workspace id.", show_default=False)] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Data folder of a platform that runs on this machine.")
    ] = None,
) -> None:
    """Lists, sets and deletes policies. Without --component and --ring: of the workspace as a whole."""
    from flow_platform.cli.remote import Remote

    said = {
        "concurrency": concurrency,
        "concurrency_per_key": concurrency_per_key,
        "rate": rate and _rate(rate),
        "priority": priority,
        "retry": _retry(max_attempts, retry_interval),
        "max_queued": max_queued,
        "weight": weight,
    }
    if action is not Action.SET and any(value is not None for value in said.values()):
        raise InvalidInput(f"flow policy {action.value}: expected no values, only flow policy set has them")
    with Remote(find_connection(url, token, org, workspace, data)) as remote:
        scope = {
            "component_id": _component_id(remote, component) if component else None,
            "ring_id": remote.ring_id(ring) if ring else None,
        }
        match action:
            case Action.SET:
                stored = remote.put("/policies", {**scope, **said})
                if as_json:
                    output.emit_json(stored)
                else:
                    output.say(f"set the policy of {_named(component, ring)}")
            case Action.DELETE:
                remote.delete("/policies", **scope)
                output.say(f"deleted the policy of {_named(component, ring)}")
            case _:
                wanted = {name: value for name, value in scope.items() if value}
                items = remote.get("/policies")["items"]
                _list(remote, [one for one in items if wanted.items() <= one.items()], as_json)


def _rate(text: str) -> dict[str, Any]:
    found = _RATE.fullmatch(text)
    if not found:
        raise InvalidInput(f"--rate {text!r}: expected COUNT/SECONDS or COUNT/SECONDS,BURST, such as 10/1,20")
    count, seconds, burst = found.groups()
    return {"count": int(count), "period_seconds": float(seconds), "burst": int(burst or 1)}


def _retry(max_attempts: int | None, interval: float | None) -> dict[str, Any] | None:
    if max_attempts is None:
        if interval is not None:
            raise InvalidInput("--retry-interval: expected --max-attempts with it")
        return None
    return {"max_attempts": max_attempts} | ({} if interval is None else {"initial_interval_seconds": interval})


def _component_id(remote: Remote, text: str) -> str:
    from flow_platform.cli.run import parse_component

    kind, slug = parse_component(text)
    component_id: str = remote.get(f"/{kind}/{slug}")["id"]
    return component_id


def _named(component: str | None, ring: str | None) -> str:
    if component is None and ring is None:
        return "the workspace"
    return (component or "every component") + (f" in ring {ring}" if ring else "")


def _list(remote: Remote, policies: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        output.emit_json(policies)
        return
    rings = {ring_id: name for name, ring_id in remote.rings().items()}
    rows: list[tuple[str, str, str]] = []
    for one in policies:
        said = ", ".join(f"{name} {_shown(one[name])}" for name in SHOWN if one.get(name) is not None)
        rows.append((_component_name(remote, one["component_id"]), rings.get(one["ring_id"], ""), said))
    output.show_table(("component", "ring", "policy"), rows)


def _component_name(remote: Remote, component_id: str | None) -> str:
    """Policies are of components of every kind, and say only the id."""
    if component_id is None:
        return ""
    for kind in ("code-blocks", "transforms", "workflows", "agents"):
        try:
            return f"{kind}/{remote.get(f'/{kind}/{component_id}')['slug']}"
        except FlowError:
            continue
    return component_id


def _shown(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    if "count" in value:
        return f"{value['count']}/{value['period_seconds']:g},{value['burst']}"
    return f"{value['max_attempts']} attempts"
