"""Components and their versions: publishing them, and finding them again.

A version is what its definition's digest says. Publishing content that the component has already gives that version,
without another build. Everything else is built and inspected by a runner first (a graph: only checked), outside of any
transaction, and then written at once: the component, its new version, and its deployments in the rings that deploy by
themselves.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from flow_platform.domain import errors
from flow_platform.domain.clock import Clock, Entropy, new_id, system_entropy
from flow_platform.domain.component import Component, Definition, Version
from flow_platform.domain.principal import Action, Principal
from flow_platform.engine.agent_request import AgentRequest
from flow_platform.engine.publish_agent import agent_definition, build_agent
from flow_platform.engine.publish_graph import check_graph
from flow_platform.engine.publish_request import MAX_DESCRIPTION, PublishRequest, definition_of
from flow_platform.engine.releases import check_workspace, require_not_execution
from flow_platform.engine.rollout_steps import RolloutSteps
from flow_platform.engine.rollouts import Rollouts, place_in_auto_rings
from flow_platform.store.base import Page, Store, Transaction
from flow_platform.store.rollout_port import SmokeInput
from flow_sdk.wire.isolation import DEFAULT
from flow_sdk.wire.runner import BuildReply, BuildRequest
from flow_sdk.wire.status import Kind

logger = logging.getLogger(__name__)

BUILD_TIMEOUT_SECONDS: Final = 300.0  # For locking, installing and inspecting; a large package takes a minute.
PUBLISHABLE: Final = (Kind.CODE_BLOCK, Kind.TRANSFORM, Kind.WORKFLOW, Kind.AGENT)

TEMPORARY: Final = frozenset({"index_unavailable", "sandbox_unavailable", "bus_unavailable"})
"""What a runner says of a build when not the component is at fault."""

Builder = Callable[[BuildRequest], Awaitable[BuildReply]]
"""Has a runner build and inspect a component. Raises BusUnavailable when none can be reached."""


@dataclass(frozen=True)
class Published:
    """The version that has the content. `is_new`: it was made now."""

    component: Component
    version: Version
    is_new: bool


class Catalog:
    """The components of workspaces."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        build: Builder,
        rollouts: Rollouts,
        entropy: Entropy = system_entropy,
    ) -> None:
        self._store = store
        self._clock = clock
        self._build = build
        self._rollouts = rollouts
        self._entropy = entropy

    async def publish(
        self, principal: Principal, org_id: str, workspace_id: str, kind: Kind, request: PublishRequest | AgentRequest
    ) -> Published:
        """Makes a version of the content and deploys it where rings deploy by themselves.

        The same content again gives the version that has it, and makes that one the deployed one again there.
        Name, description and tags belong to the component: they change without a new version.

        Raises:
            InvalidInput: A field does not go with the kind, or a graph is not valid; details name node or edge.
            BuildFailed: The source, a dependency or an example was refused; details name the line or the requirement.
            BusUnavailable, SandboxUnavailable: Nothing could be built now; the same request can succeed later.
        """
        require_not_execution(principal, Action.PUBLISH, org_id, workspace_id)
        if kind not in PUBLISHABLE:
            expected = ", ".join(repr(other.value) for other in PUBLISHABLE)
            raise errors.InvalidInput(f"kind {kind.value!r} cannot be published: expected one of {expected}")
        if isinstance(request, AgentRequest):
            definition = await agent_definition(self._store, org_id, workspace_id, request)
        else:
            definition = definition_of(kind, request)
        publication = _Publication(self._clock, self._entropy, org_id, workspace_id, request, definition)
        known = await self._rollouts.change(principal.subject, publication.reuse)
        if known is not None:
            return known
        if definition.agent is not None:
            reply = await build_agent(self._built, request.slug, definition, BUILD_TIMEOUT_SECONDS)
        elif definition.graph is None:
            reply = await self._built(_build_request(request.slug, definition))
        else:
            reply = await check_graph(self._store, org_id, workspace_id, definition.graph)
        published = await self._rollouts.change(principal.subject, lambda steps: publication.add(steps, reply))
        logger.info(
            "published a version",
            extra={"component_id": published.component.id, "version": published.version.number},
        )
        return published

    async def _built(self, request: BuildRequest) -> BuildReply:
        reply = await self._build(request)
        if reply.error is not None:
            failure = errors.SandboxUnavailable if reply.error.code in TEMPORARY else errors.BuildFailed
            raise failure(reply.error.message, code=reply.error.code, details=reply.error.details)
        return reply

    async def get(
        self, principal: Principal, org_id: str, workspace_id: str, kind: Kind, id_or_slug: str
    ) -> tuple[Component, Version | None]:
        """A component and its newest version.

        Raises:
            NotFound: There is none of this kind in the workspace.
        """
        require_not_execution(principal, Action.READ, org_id, workspace_id)

        def operation(tx: Transaction) -> tuple[Component, Version | None]:
            component = _component(tx, org_id, workspace_id, kind, id_or_slug)
            return component, tx.catalog.find_version(component.id)

        return await self._store.read(operation)

    async def list(
        self, principal: Principal, org_id: str, workspace_id: str, kind: Kind, cursor: str | None, limit: int
    ) -> Page:
        """A page of components, newest first."""
        require_not_execution(principal, Action.READ, org_id, workspace_id)

        def operation(tx: Transaction) -> Page:
            check_workspace(tx, org_id, workspace_id)
            return tx.catalog.list_components(org_id, workspace_id, kind, cursor, limit)

        return await self._store.read(operation)

    async def versions(
        self,
        principal: Principal,
        org_id: str,
        workspace_id: str,
        kind: Kind,
        id_or_slug: str,
        cursor: str | None,
        limit: int,
    ) -> Page:
        """A page of a component's versions, newest first."""
        require_not_execution(principal, Action.READ, org_id, workspace_id)

        def operation(tx: Transaction) -> Page:
            component = _component(tx, org_id, workspace_id, kind, id_or_slug)
            return tx.catalog.list_versions(component.id, cursor, limit)

        return await self._store.read(operation)

    async def get_version(
        self, principal: Principal, org_id: str, workspace_id: str, kind: Kind, id_or_slug: str, number: int
    ) -> Version:
        """Raises NotFound when the component has no such version."""
        require_not_execution(principal, Action.READ, org_id, workspace_id)

        def operation(tx: Transaction) -> Version:
            component = _component(tx, org_id, workspace_id, kind, id_or_slug)
            version = tx.catalog.find_version(component.id, number)
            if version is None:
                raise errors.NotFound(f"version {number!r} of {kind.value} {component.slug!r} not found")
            return version

        return await self._store.read(operation)


class _Publication:
    """The two transactions of one publish. Each may run more than once."""

    def __init__(
        self,
        clock: Clock,
        entropy: Entropy,
        org_id: str,
        workspace_id: str,
        request: PublishRequest | AgentRequest,
        definition: Definition,
    ) -> None:
        self._now = clock.now()
        self._entropy = entropy
        self._org_id = org_id
        self._workspace_id = workspace_id
        self._request = request
        self._definition = definition
        self._digest = definition.digest()

    def reuse(self, steps: RolloutSteps) -> Published | None:
        """The version that has the content already, if any."""
        tx = steps.tx
        check_workspace(tx, self._org_id, self._workspace_id)
        component = self._find(tx)
        version = tx.catalog.find_version_by_digest(component.id, self._digest) if component else None
        if component is None or version is None:
            return None
        renamed = self._described(component, component.description)
        if renamed != component:
            tx.catalog.update_component(renamed)
        self._keep_smoke_input(tx, renamed)
        place_in_auto_rings(steps, renamed, version)
        return Published(renamed, version, is_new=False)

    def add(self, steps: RolloutSteps, reply: BuildReply) -> Published:
        """Writes the version; looks again first, because another publish may have come in between."""
        known = self.reuse(steps)
        if known is not None:
            return known
        tx = steps.tx
        earlier = self._find(tx)
        documented = reply.description[:MAX_DESCRIPTION]
        component = self._described(earlier, documented) if earlier else self._first(documented)
        component = dataclasses.replace(component, latest_version=component.latest_version + 1)
        if earlier:
            tx.catalog.update_component(component)
        else:
            tx.catalog.insert_component(component)
        version = Version(
            id=new_id(self._now, self._entropy),
            component_id=component.id,
            number=component.latest_version,
            digest=self._digest,
            definition=self._definition,
            created_at=self._now,
            environment=reply.environment,
            input_schema=reply.input_schema,
            output_schema=reply.output_schema,
        )
        tx.catalog.insert_version(version)
        self._keep_smoke_input(tx, component)
        place_in_auto_rings(steps, component, version)
        return Published(component, version, is_new=True)

    def _keep_smoke_input(self, tx: Transaction, component: Component) -> None:
        """It belongs to the component: it changes without a new version."""
        if "smoke_input" in self._request.model_fields_set:
            given = self._request.smoke_input
            tx.rollouts.set_smoke_input(component.id, None if given is None else SmokeInput(given))

    def _find(self, tx: Transaction) -> Component | None:
        found = tx.catalog.find_component(self._org_id, self._workspace_id, self._definition.kind, self._request.slug)
        # A slug may look like the id of another component: only a component of that name is meant here.
        return found if found is not None and found.slug == self._request.slug else None

    def _first(self, documented: str) -> Component:
        request = self._request
        return Component(
            id=new_id(self._now, self._entropy),
            org_id=self._org_id,
            workspace_id=self._workspace_id,
            kind=self._definition.kind,
            slug=request.slug,
            name=request.name or request.slug,
            description=request.description if request.description is not None else documented,
            tags=request.tags,
            created_at=self._now,
        )

    def _described(self, component: Component, documented: str) -> Component:
        """The component with the name, description and tags of the request; what is not given stays as it is."""
        request = self._request
        given = request.model_fields_set
        return dataclasses.replace(
            component,
            name=request.name or component.name,
            description=request.description if request.description is not None else documented,
            tags=request.tags if "tags" in given else component.tags,
        )


def _build_request(slug: str, definition: Definition) -> BuildRequest:
    return BuildRequest(
        kind=definition.kind,
        slug=slug,
        code=definition.code,
        entry_point=definition.entry_point,
        dependencies=list(definition.dependencies),
        examples=list(definition.examples),
        timeout_seconds=BUILD_TIMEOUT_SECONDS,
        isolation=definition.isolation or DEFAULT,
    )


def _component(tx: Transaction, org_id: str, workspace_id: str, kind: Kind, id_or_slug: str) -> Component:
    component = tx.catalog.find_component(org_id, workspace_id, kind, id_or_slug)
    if component is None:
        raise errors.NotFound(f"{kind.value} {id_or_slug!r} not found")
    return component
