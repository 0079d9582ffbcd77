"""`flow rings`, `deployments`, `promote`, `approve`, `rollback`: versions on their way to production."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from flow_platform.cli import output
from flow_platform.cli.connection import Connection, with_connection
from flow_platform.domain.errors import FlowError, InvalidInput

if TYPE_CHECKING:
    from flow_platform.cli.deployments import Named
    from flow_platform.cli.remote import Remote

RULE_FIELDS: Final = ("failure_rate", "minimum_count", "window_seconds", "watch_seconds")

_Slugs = Annotated[list[str], typer.Argument(metavar="SLUG...", help="Slugs, or KIND/SLUG.", show_default=False)]
_Json = Annotated[bool, typer.Option("--json", help="As JSON.")]


@with_connection
def rings(
    connection: Connection,
    ring: Annotated[str | None, typer.Argument(help="Ring to change.", show_default=False)] = None,
    create: Annotated[bool, typer.Option("--create", help="Make it; needs --order.")] = False,
    order: Annotated[int | None, typer.Option(min=0, help="Lower ones come first.", show_default=False)] = None,
    auto_deploy: Annotated[
        bool | None,
        typer.Option("--auto-deploy/--no-auto-deploy", help="Deploy what is published.", show_default=False),
    ] = None,
    approval: Annotated[
        bool | None, typer.Option("--approval/--no-approval", help="Deployments wait for one.", show_default=False)
    ] = None,
    failure_rate: Annotated[
        float | None, typer.Option(help="Roll back when so many fail, from 0 to 1.", show_default=False)
    ] = None,
    minimum_count: Annotated[
        int | None, typer.Option(help="Once so many executions ended.", show_default=False)
    ] = None,
    window: Annotated[float | None, typer.Option(help="Of so many seconds.", show_default=False)] = None,
    watch: Annotated[
        float | None, typer.Option(help="Only so many seconds after the deployment.", show_default=False)
    ] = None,
    no_rollback: Annotated[bool, typer.Option("--no-rollback", help="Take nothing back by itself.")] = False,
    minimum_isolation: Annotated[
        str | None,
        typer.Option(help="What all runs in at least: namespaces, docker or gvisor.", show_default=False),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A variable.", show_default=False)
    ] = None,
    unset: Annotated[
        list[str] | None, typer.Option("--unset", metavar="NAME", help="Remove a variable.", show_default=False)
    ] = None,
    as_json: _Json = False,
) -> None:
    """Lists the rings; with a ring and options, changes it, from now on, or makes it."""
    from flow_platform.cli.remote import Remote

    rule = dict(zip(RULE_FIELDS, (failure_rate, minimum_count, window, watch), strict=True))
    rule = {name: value for name, value in rule.items() if value is not None}
    given = {
        "order": order,
        "auto_deploy": auto_deploy,
        "requires_approval": approval,
        "minimum_isolation": minimum_isolation,
    }
    change: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if rule and no_rollback:
        raise InvalidInput("--no-rollback does not go with a rule: expected one of them")
    if ring is None and (create or change or rule or no_rollback or set_ or unset):
        raise InvalidInput("expected the ring that is to be changed or made")
    if create and order is None:
        raise InvalidInput("--create: expected --order, too; flow rings shows those of the others")
    with Remote(connection) as remote:
        if ring is None:
            shown = remote.get("/rings")["items"]
        else:
            nothing: dict[str, Any] = {"env": {}, "rollback": None}
            known = nothing if create else _ring(remote, ring)
            if rule or no_rollback:
                change["rollback"] = None if no_rollback else {**(known["rollback"] or {}), **rule}
            if set_ or unset:
                change["env"] = _variables(known["env"], set_ or [], unset or [])
            shown = [_changed(remote, ring, None if create else known, change)]
    if as_json:
        output.emit_json(shown)
        return
    columns = ("ring", "order", "auto-deploy", "approval", "rolls back by itself", "isolation", "variables", "id")
    output.show_table(columns, [_ring_row(each) for each in shown])


def _changed(remote: Remote, name: str, known: dict[str, Any] | None, change: dict[str, Any]) -> dict[str, Any]:
    """The ring as it is then; made where there was none."""
    if known is None:
        return remote.post("/rings", {"name": name, **change})[1]
    return remote.patch(f"/rings/{known['id']}", change) if change else known


@with_connection
def deployments(
    connection: Connection,
    slug: Annotated[
        str | None, typer.Argument(help="Of this component: SLUG or KIND/SLUG.", show_default=False)
    ] = None,
    ring: Annotated[str | None, typer.Option("--ring", help="In this ring only.", show_default=False)] = None,
    state: Annotated[
        str | None, typer.Option("--state", help="In this state only, such as active.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    as_json: _Json = False,
) -> None:
    """Lists deployments, newest first."""
    from flow_platform.cli.deployments import find_component
    from flow_platform.cli.remote import Remote

    with Remote(connection) as remote:
        component = find_component(remote, slug) if slug else None
        names = {ring_id: name for name, ring_id in remote.rings().items()}
        ring_id = remote.ring_id(ring) if ring else None
        component_id = component.id if component else None
        found = list(remote.pages("/deployments", limit, component_id=component_id, ring_id=ring_id, state=state))
        ids = {each["component_id"] for each in found} if not as_json else set[str]()
        labels = {each: find_component(remote, each).label for each in sorted(ids)}
    if as_json:
        output.emit_json(found)
        return
    rows = [_deployment_row(each, labels[each["component_id"]], names) for each in found]
    output.show_table(("id", "component", "version", "ring", "state", "age", "by", "what"), rows)


@with_connection
def promote(
    connection: Connection,
    slugs: _Slugs,
    to: Annotated[str, typer.Option("--to", help="Ring to promote to.", show_default=False)],
    from_: Annotated[
        str | None, typer.Option("--from", help="Ring to promote from; default: the one before.", show_default=False)
    ] = None,
    share: Annotated[
        int, typer.Option(min=1, max=100, help="Percent of new executions that it takes; less than 100: until raised.")
    ] = 100,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until its smoke run has ended.")] = True,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: _Json = False,
) -> None:
    """Brings what is active in one ring to a later one: the same content, not built again.

    Several components go together: all or none.
    """
    from flow_platform.cli.deployments import find_component, newest, outcome, settled
    from flow_platform.cli.remote import Remote

    with Remote(connection) as remote:
        target = _ring(remote, to)
        source = _ring(remote, from_) if from_ else _before(remote, target)
        components = [find_component(remote, slug) for slug in slugs]
        sources: list[dict[str, Any]] = []
        for component in components:
            active = newest(remote, component, source["id"], "active")
            if active is None:
                raise FlowError(
                    f"{component.label} is not active in {source['name']}",
                    code="not_promotable",
                    hint=f"flow deployments {component.label} shows where it is; --from names that ring",
                )
            sources.append(active)
        rolling = [newest(remote, component, target["id"], "validating") for component in components]
        if not yes:
            _confirm(components, sources, source["name"], target["name"])
        made = _send(remote, sources, rolling, target["id"], share)
        if wait:
            made = [settled(remote, each) for each in made]
    if as_json:
        output.emit_json(made)
        return
    for component, deployment in zip(components, made, strict=True):
        output.emit(outcome(component.label, deployment, target["name"]))


@with_connection
def approve(
    connection: Connection,
    slugs: _Slugs,
    ring: Annotated[str, typer.Option("--ring", help="Ring that asks for the approval.", show_default=False)],
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until its smoke run has ended.")] = True,
    as_json: _Json = False,
) -> None:
    """Approves deployments that wait for it; one of a set approves the set."""
    from flow_platform.cli.deployments import find_component, newest, outcome, settled
    from flow_platform.cli.remote import Remote

    with Remote(connection) as remote:
        ring_id = remote.ring_id(ring)
        waiting: list[tuple[Named, dict[str, Any]]] = []
        for component in (find_component(remote, slug) for slug in slugs):
            queued = newest(remote, component, ring_id, "queued")
            if queued is None:
                raise FlowError(f"no deployment of {component.label} waits for an approval in {ring}")
            waiting.append((component, queued))
        approved: list[tuple[Named, dict[str, Any]]] = []
        for component, queued in waiting:
            path = f"/deployments/{queued['deployment_id']}"
            now = remote.get(path)  # A set may have been approved by its first member.
            now = remote.post(f"{path}/approve", {})[1] if now["state"] == "queued" else now
            approved.append((component, settled(remote, now) if wait else now))
    if as_json:
        output.emit_json([deployment for _, deployment in approved])
        return
    for component, deployment in approved:
        output.emit(outcome(component.label, deployment, ring))


@with_connection
def rollback(
    connection: Connection,
    slug: Annotated[str, typer.Argument(metavar="SLUG", help="Slug, or KIND/SLUG.", show_default=False)],
    ring: Annotated[str, typer.Option("--ring", help="Ring to roll back in.", show_default=False)],
    reason: Annotated[str, typer.Option("--reason", help="Kept with the deployment.", show_default=False)] = "",
    as_json: _Json = False,
) -> None:
    """Takes a component's deployment back: one on its way ends, else the one before the active one is active again."""
    from flow_platform.cli.deployments import find_component, newest
    from flow_platform.cli.remote import Remote

    with Remote(connection) as remote:
        ring_id = remote.ring_id(ring)
        component = find_component(remote, slug)
        found = newest(remote, component, ring_id, "queued", "validating") or newest(
            remote, component, ring_id, "active"
        )
        if found is None:
            raise FlowError(f"{component.label} is not deployed in {ring}", code="not_deployed")
        taken = remote.post(f"/deployments/{found['deployment_id']}/rollback", {"reason": reason})[1]
        active = newest(remote, component, ring_id, "active")
    if as_json:
        output.emit_json({"taken_back": taken, "active": active})
        return
    now = f"v{active['version']} active" if active else "nothing active"
    output.emit(f"{component.label}: v{taken['version']} taken back in {ring}, {now}")


def _send(
    remote: Remote,
    sources: list[dict[str, Any]],
    rolling: list[dict[str, Any] | None],
    ring_id: str,
    share: int,
) -> list[dict[str, Any]]:
    """Promotes; what is on its way already with a share is given another one."""
    raised = [one for one, source in zip(rolling, sources, strict=True) if one and one["digest"] == source["digest"]]
    if len(raised) == len(sources):
        for one in raised:
            path = f"/deployments/{one['deployment_id']}"
            if remote.get(path)["state"] == "validating":  # A set is changed by its first member.
                remote.post(f"{path}/share", {"share": share})
        return [remote.get(f"/deployments/{one['deployment_id']}") for one in raised]
    body: dict[str, Any] = {"ring_id": ring_id, "share": share % 100}
    if len(sources) == 1:
        return [remote.post(f"/deployments/{sources[0]['deployment_id']}/promote", body)[1]]
    ids = [source["deployment_id"] for source in sources]
    return remote.post("/deployments/promote", {**body, "deployment_ids": ids})[1]["items"]


def _confirm(components: list[Named], sources: list[dict[str, Any]], source: str, target: str) -> None:
    for component, deployment in zip(components, sources, strict=True):
        output.say(f"{component.label} v{deployment['version']}: {source} to {target}")
    question = f"promote {len(components)} component{'s' if len(components) > 1 else ''} to {target}"
    if not sys.stdin.isatty():
        raise FlowError(f"{question}: not confirmed", hint="say --yes")
    typer.confirm(f"{question}?", abort=True, err=True)


def _ring(remote: Remote, name_or_id: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = remote.get("/rings")["items"]
    for ring in found:
        if name_or_id in (ring["id"], ring["name"]):
            return ring
    raise FlowError(f"no ring {name_or_id!r}: expected one of {', '.join(ring['name'] for ring in found)}")


def _before(remote: Remote, target: dict[str, Any]) -> dict[str, Any]:
    earlier = [ring for ring in remote.get("/rings")["items"] if ring["order"] < target["order"]]
    if not earlier:
        raise FlowError(f"no ring comes before {target['name']}", code="not_promotable")
    return max(earlier, key=lambda ring: ring["order"])


def _variables(env: dict[str, str], given: list[str], unset: list[str]) -> dict[str, str]:
    changed = {name: value for name, value in env.items() if name not in unset}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidInput(f"--set {text!r}: expected NAME=VALUE")
        changed[name] = value
    return changed


def _ring_row(ring: dict[str, Any]) -> list[Any]:
    rule = ring["rollback"]
    rolls_back = f"{rule['failure_rate']:.0%} of {rule['minimum_count']} or more" if rule else "no"
    yes_or_no = {True: "yes", False: "no"}
    return [
        ring["name"],
        ring["order"],
        yes_or_no[ring["auto_deploy"]],
        yes_or_no[ring["requires_approval"]],
        rolls_back,
        ring["minimum_isolation"],
        ", ".join(sorted(ring["env"])),
        ring["id"],
    ]


def _deployment_row(deployment: dict[str, Any], label: str, names: dict[str, str]) -> list[Any]:
    from datetime import datetime

    from flow_platform.domain.clock import SystemClock

    created_at = datetime.fromisoformat(deployment["created_at"])
    waiting: dict[str, Any] = deployment["waiting_on"] or {"message": ""}
    return [
        deployment["deployment_id"],
        label,
        f"v{deployment['version']}",
        names.get(deployment["ring_id"], deployment["ring_id"]),
        deployment["state"],
        output.age(created_at, SystemClock().now()),
        deployment["requested_by"],
        output.cell(deployment["reason"] or waiting["message"], 60),
    ]
