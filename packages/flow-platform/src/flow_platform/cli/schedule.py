"""`flow schedule`: what starts by the clock."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from flow_platform.cli import output
from flow_platform.cli.connection import Connection, with_connection
from flow_platform.cli.duration import parse_duration, shown_duration
from flow_platform.domain.errors import FlowError, InvalidInput
from flow_platform.domain.schedule import Overlap

if TYPE_CHECKING:
    from flow_platform.cli.remote import Remote

SHOWN_FIRINGS: Final = 10


class Action(StrEnum):
    LIST = "list"
    CREATE = "create"
    SHOW = "show"
    PAUSE = "pause"
    RESUME = "resume"
    DELETE = "delete"
    TRIGGER = "trigger"


@with_connection
def schedule(
    connection: Connection,
    action: Annotated[Action, typer.Argument(help="What to do.")],
    target: Annotated[
        str | None,
        typer.Argument(help="create: the component, KIND/SLUG. Else: the schedule's id.", show_default=False),
    ] = None,
    cron: Annotated[
        str | None, typer.Option(help="create: five fields, or @hourly, @daily, ...", show_default=False)
    ] = None,
    every: Annotated[str | None, typer.Option(help="create: instead, e.g. 15m.", show_default=False)] = None,
    zone: Annotated[str, typer.Option(help="create: time zone of --cron.")] = "UTC",
    overlap: Annotated[Overlap, typer.Option(help="create: when the run before still goes on.")] = Overlap.SKIP,
    catch_up: Annotated[str, typer.Option("--catch-up", help="create: how late a run may start.")] = "10m",
    given: Annotated[
        str | None, typer.Option("--input", "-i", help="create: JSON, @FILE, or -.", metavar="JSON")
    ] = None,
    ring: Annotated[str, typer.Option(help="create: ring to run in.", envvar="FLOW_RING")] = "dev",
    timeout: Annotated[float | None, typer.Option(help="create: seconds that each run may take.", min=0.1)] = None,
    name: Annotated[str, typer.Option(help="create: a name, for people.")] = "",
    paused: Annotated[bool, typer.Option("--paused", help="create: does not start anything yet.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Lists, makes, shows, pauses, resumes, triggers and deletes schedules."""
    from flow_platform.cli.remote import Remote

    if (target is None) != (action is Action.LIST):
        expected = {Action.LIST: "expected no id", Action.CREATE: "expected KIND/SLUG"}.get(action, "expected an id")
        raise FlowError(f"flow schedule {action.value}: {expected}", hint="flow schedule --help")
    if action is not Action.CREATE and (cron, every, given, timeout) != (None, None, None, None):
        raise InvalidInput(f"flow schedule {action.value}: --cron, --every, --input and --timeout are for create")
    if action is Action.CREATE and (cron is None) == (every is None):
        raise InvalidInput("flow schedule create: expected either --cron or --every")
    with Remote(connection) as remote:
        if action is Action.LIST:
            _list(remote, as_json)
        elif action is Action.CREATE:
            body: dict[str, Any] = {
                "ring_id": remote.ring_id(ring),
                "name": name,
                "cron": cron,
                "interval_seconds": None if every is None else parse_duration("--every", every),
                "time_zone": zone,
                "overlap": overlap.value,
                "catch_up_seconds": parse_duration("--catch-up", catch_up),
                "timeout_seconds": timeout,
                "paused": paused,
            }
            _tell(_create(remote, target or "", given, body), "made", as_json)
        else:
            _act(remote, action, target or "", as_json)


def _create(remote: Remote, component: str, given: str | None, body: dict[str, Any]) -> dict[str, Any]:
    from flow_platform.cli.run import parse_component, read_input

    kind, slug = parse_component(component)
    body |= {"component_id": slug, "kind": kind.removesuffix("s").replace("-", "_")}
    if given is not None:
        body["input_data"] = read_input(given)
    return remote.post("/schedules", body)[1]


def _act(remote: Remote, action: Action, schedule_id: str, as_json: bool) -> None:
    from flow_sdk.executions import segment

    path = f"/schedules/{segment('schedule', schedule_id)}"
    match action:
        case Action.SHOW:
            _show(remote, path, as_json)
        case Action.PAUSE:
            _tell(remote.patch(path, {"paused": True}), "paused", as_json)
        case Action.RESUME:
            _tell(remote.patch(path, {"paused": False}), "resumed", as_json)
        case Action.DELETE:
            remote.delete(path)
            output.say(f"deleted {schedule_id}")
        case _:
            firing = remote.submit(f"{path}/trigger", {})
            if as_json:
                output.emit_json(firing)
            else:
                output.emit(str(firing["execution_id"]))


def _list(remote: Remote, as_json: bool) -> None:
    found = list(remote.pages("/schedules"))
    if as_json:
        output.emit_json(found)
        return
    rings = {ring_id: name for name, ring_id in remote.rings().items()}
    output.show_table(
        ("id", "component", "ring", "when", "next", "last"), [_row(schedule, rings) for schedule in found]
    )


def _row(schedule: dict[str, Any], rings: dict[str, str]) -> list[str]:
    component = schedule["component"]
    return [
        str(schedule["id"]),
        f"{component['kind'].replace('_', '-')}s/{component['slug']}",
        rings.get(schedule["ring_id"]) or str(schedule["ring_id"]),
        _when(schedule),
        "paused" if schedule["paused"] else str(schedule["next_firing_at"] or "never"),
        _firing(schedule["last_firing"]),
    ]


def _when(schedule: dict[str, Any]) -> str:
    if schedule["cron"] is None:
        return f"every {shown_duration(schedule['interval_seconds'])}"
    return f"{schedule['cron']} {schedule['time_zone']}"


def _firing(firing: dict[str, Any] | None) -> str:
    """What became of it, with why."""
    if firing is None:
        return ""
    error: dict[str, Any] | None = firing["error"]
    why: str | None = error["message"] if error else firing["reason"]
    return output.cell(f"{firing['status']}: {why}" if why else str(firing["status"]), 60)


def _show(remote: Remote, path: str, as_json: bool) -> None:
    schedule = remote.get(path)
    firings = remote.get(f"{path}/firings", limit=SHOWN_FIRINGS)["items"]
    if as_json:
        output.emit_json({**schedule, "firings": firings})
        return
    shown = {name: value for name, value in schedule.items() if name not in ("next_firings", "last_firing")}
    shown |= {"component": f"{schedule['component']['kind']} {schedule['component']['slug']}"}
    rows = [(name, value) for name, value in shown.items() if value not in (None, "", {})]
    output.show_table(("field", "value"), [*rows, *(("fires at", at) for at in schedule["next_firings"])])
    output.emit("")
    output.show_table(
        ("due", "what", "execution", "its status"),
        [(each["scheduled_at"], _firing(each), each["execution_id"], each["execution_status"]) for each in firings],
    )


def _tell(schedule: dict[str, Any], done: str, as_json: bool) -> None:
    if as_json:
        output.emit_json(schedule)
        return
    at = f", fires at {schedule['next_firing_at']}" if schedule["next_firing_at"] else ""
    output.say(f"{done} {_when(schedule)}{at}")
    output.emit(schedule["id"])
