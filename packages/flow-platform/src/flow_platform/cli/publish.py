"""`flow publish`: sends the components declared in files to the platform."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from flow_platform.cli import output
from flow_platform.cli.agent_calls import AgentFound
from flow_platform.cli.connection import Connection, with_connection
from flow_platform.cli.graph_files import GraphFile
from flow_platform.cli.service_declarations import ServiceFound
from flow_platform.domain.errors import FlowError

if TYPE_CHECKING:
    from flow_platform.cli.declarations import Found, Publishable
    from flow_platform.cli.remote import Remote

PARALLEL: Final = 4  # Publishes at the same time; each waits for a build, and runners bound those by themselves.
COLORS: Final = {"created": "green", "updated": "cyan", "unchanged": "dim"}


_REFERRING: Final = (GraphFile, AgentFound, ServiceFound)


@dataclass(frozen=True)
class Outcome:
    """What publishing one component, or a service, did: `change` is created, updated or unchanged."""

    kind: str
    slug: str
    change: str
    version: int
    component_id: str
    deployment_id: str | None
    deployed: bool
    """Whether it took a deployment of its own: a ring with `auto_deploy` has a new version already."""
    state: str
    seconds: float


@with_connection
def publish(
    connection: Connection,
    path: Annotated[Path, typer.Argument(help="A Python file, a *.workflow.json, or a folder of them.")],
    ring: Annotated[str, typer.Option(help="Ring that gets the new version.", envvar="FLOW_RING")] = "dev",
    as_json: Annotated[bool, typer.Option("--json", help="The outcome as JSON.")] = False,
) -> None:
    """Publishes the components and services declared in a file or folder, and deploys the components to a ring.

    The files are read, not run. The same content again changes nothing.
    """
    from flow_platform.cli.declarations import find_components
    from flow_platform.cli.remote import Remote

    components = find_components(path)
    outcomes: list[Outcome] = []
    with Remote(connection) as remote:
        for outcome in publish_components(remote, components, ring):
            outcomes.append(outcome)
            if not as_json:
                change = output.paint(outcome.change, COLORS[outcome.change])
                deployed = f", deployed to {ring}" if outcome.deployed else ""
                waits = f", waits for an approval in {ring}" if outcome.state == "queued" else deployed
                output.emit(f"{outcome.kind}/{outcome.slug}: {change} v{outcome.version}{waits}")
    if as_json:
        output.emit_json([vars(outcome) for outcome in outcomes])


def publish_components(remote: Remote, components: list[Publishable], ring: str) -> Iterator[Outcome]:
    """Publishes several at a time; yields in the order given. The first refusal ends it, with the component's place.

    Agents, graphs and services come one after the other, when all the rest is there: they refer to it.

    Raises:
        FlowError: The platform refused one.
    """
    ring_id = remote.ring_id(ring)
    with ThreadPoolExecutor(PARALLEL) as pool:
        of_code = [component for component in components if not isinstance(component, _REFERRING)]
        running = [pool.submit(_publish_one, remote, component, ring_id) for component in of_code]
        try:
            for outcome in running:
                yield outcome.result()
        finally:
            for outcome in running:
                outcome.cancel()
    for component in components:
        if isinstance(component, ServiceFound):
            yield _publish_service(remote, component, ring)
        elif isinstance(component, GraphFile | AgentFound):
            yield _publish_one(remote, component, ring_id)


def _publish_one(remote: Remote, component: Found | GraphFile | AgentFound, ring_id: str) -> Outcome:
    from flow_platform.cli.deployments import require_not_failed, settled
    from flow_platform.cli.remote import PUBLISH_TIMEOUT_SECONDS

    started = time.monotonic()
    with _placed(component):
        status, made = remote.post(f"/{component.kind.path}", component.body, PUBLISH_TIMEOUT_SECONDS)
        deployed, deployment = remote.post(
            "/deployments", {"component_id": made["id"], "version": made["version"], "ring_id": ring_id}
        )
        deployment = settled(remote, deployment)
        require_not_failed(deployment)
    return Outcome(
        component.kind.path,
        component.slug,
        _change(status, made["version"]),
        made["version"],
        made["id"],
        deployment.get("deployment_id"),
        deployed == 201,
        deployment["state"],
        round(time.monotonic() - started, 3),
    )


def _publish_service(remote: Remote, service: ServiceFound, ring: str) -> Outcome:
    """Its ring stays that of its first publish, unless it names one: callers are not moved in passing."""
    from flow_platform.cli.remote import PUBLISH_TIMEOUT_SECONDS
    from flow_platform.cli.service_drafts import service_path, write_draft

    started = time.monotonic()
    with _placed(service):
        slug = write_draft(remote, service.body, ring)
        status, made = remote.post(f"{service_path(slug)}/publish", {}, PUBLISH_TIMEOUT_SECONDS)
    return Outcome(
        "services",
        slug,
        _change(status, made["version"]),
        made["version"],
        made["service_id"],
        None,
        deployed=False,
        state="published",
        seconds=round(time.monotonic() - started, 3),
    )


def _change(status: int, version: int) -> str:
    return "unchanged" if status == 200 else "created" if version == 1 else "updated"


@contextmanager
def _placed(component: Publishable) -> Generator[None]:
    """Says of a refusal what was refused, and where that is declared."""
    try:
        yield
    except FlowError as error:
        raise FlowError(
            f"{component.place}: {component.label}: {error.message}",
            code=error.error_code,
            details=error.details,
            hint=error.hint,
        ) from error
