"""Rings and deployments of a workspace."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from flow_platform.api.answers import json_answer, page_answer, paging, query_text
from flow_platform.api.body import read_model
from flow_platform.api.context import principal_of, reference, workspace_of
from flow_platform.api.executions import PREFER, hold_seconds
from flow_platform.api.ring_documents import deployment_document, ring_document
from flow_platform.api.rollouts import Share
from flow_platform.api.routing import PAGING, WORKSPACE, Parameter, Route
from flow_platform.api.variables import VariableMap
from flow_platform.domain.principal import Action
from flow_platform.domain.release import DeploymentState, RollbackRule
from flow_platform.domain.rollout_health import MAX_WATCH, MAX_WINDOW, check_rule
from flow_platform.engine.releases import NewRing, require_not_execution
from flow_platform.engine.rollouts import UNCHANGED, RingChange
from flow_platform.engine.validation import invalid
from flow_platform.store.base import Page
from flow_sdk.wire.isolation import Isolation
from flow_sdk.wire.management import DeploymentDocument, PageDocument, RingDocument

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

_TAG: Final = "Rings"
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?")


def _ring_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("expected 1 to 63 of a-z, 0-9, '-' and '_', beginning and ending with a letter or digit")
    return value


MinimumIsolation = Annotated[Isolation, Field(strict=False, description="What everything in it runs in at least.")]


class RollbackRuleBody(BaseModel):
    """When a new deployment is taken back by itself."""

    model_config = ConfigDict(extra="forbid", strict=True)

    failure_rate: float = Field(RollbackRule().failure_rate, gt=0, le=1, description="Reached means too often.")
    minimum_count: int = Field(RollbackRule().minimum_count, ge=1, le=1_000_000, description="Executions that ended.")
    window_seconds: float = Field(
        RollbackRule().window.total_seconds(),
        ge=1,
        le=MAX_WINDOW.total_seconds(),
        description="How far back they count.",
    )
    watch_seconds: float = Field(
        RollbackRule().watch.total_seconds(),
        ge=0,
        le=MAX_WATCH.total_seconds(),
        description="How long a deployment is new; later failures have other causes.",
    )

    def rule(self) -> RollbackRule:
        return RollbackRule(
            self.failure_rate,
            self.minimum_count,
            timedelta(seconds=self.window_seconds),
            timedelta(seconds=self.watch_seconds),
        )


class RingBody(BaseModel):
    """A stage of the workspace; lower orders come first on the way to production."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, AfterValidator(_ring_name)]
    order: int = Field(ge=0, le=1_000_000)
    auto_deploy: bool = False
    env: VariableMap = Field(default_factory=dict[str, str])
    requires_approval: bool = False
    rollback: RollbackRuleBody | None = None
    minimum_isolation: MinimumIsolation | None = None


class RingChangeBody(BaseModel):
    """What is given changes; all else stays. `rollback` null: nothing is taken back by itself."""

    model_config = ConfigDict(extra="forbid", strict=True)

    order: int = Field(0, ge=0, le=1_000_000)
    auto_deploy: bool = False
    env: VariableMap = Field(default_factory=dict[str, str])
    requires_approval: bool = False
    rollback: RollbackRuleBody | None = None
    minimum_isolation: MinimumIsolation = Isolation.NAMESPACES

    def change(self) -> RingChange:
        fields = {name: getattr(self, name) for name in self.model_fields_set}
        if "rollback" in fields:
            fields["rollback"] = self.rollback.rule() if self.rollback else None
        return RingChange(fields)


class DeploymentBody(BaseModel):
    """Places a version (the newest when none is given) in a ring."""

    model_config = ConfigDict(extra="forbid", strict=True)

    component_id: str = Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9_-]+$")
    ring_id: str = Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9_-]+$")
    version: int | None = Field(None, ge=1, le=10**9)
    share: Share = 0
    smoke_input: Any = Field(None, description="Kept with the component; null removes it.")


class RingRoutes:
    """The endpoints of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        rings, deployments = f"{WORKSPACE}/rings", f"{WORKSPACE}/deployments"
        filters = tuple(
            Parameter(name, "Only those.", {"type": "string"}) for name in ("component_id", "ring_id", "state")
        )
        return [
            Route("GET", rings, self.rings, "All rings, in their order.", tag=_TAG, answers={200: PageDocument}),
            Route(
                "POST", rings, self.create_ring, "Makes a ring.", tag=_TAG, answers={201: RingDocument}, body=RingBody
            ),
            Route(
                "PATCH",
                f"{rings}/{{ring_id}}",
                self.change_ring,
                "Changes a ring, for all that happens in it from now on.",
                tag=_TAG,
                answers={200: RingDocument},
                body=RingChangeBody,
            ),
            Route(
                "POST",
                deployments,
                self.deploy,
                "Brings a version into a ring: 201, or 200 when it is there or on its way already.",
                tag=_TAG,
                answers={201: DeploymentDocument, 200: DeploymentDocument},
                body=DeploymentBody,
            ),
            Route(
                "GET",
                deployments,
                self.deployments,
                "A page of deployments.",
                tag=_TAG,
                answers={200: PageDocument},
                parameters=[*filters, *PAGING],
            ),
            Route(
                "GET",
                f"{deployments}/{{deployment_id}}",
                self.deployment,
                "One deployment, held until it goes no further by itself on request.",
                tag=_TAG,
                answers={200: DeploymentDocument},
                parameters=[PREFER],
            ),
        ]

    async def rings(self, request: Request) -> Response:
        principal = principal_of(request)
        rings = await self._engine.releases.rings(principal, *workspace_of(request))
        # Variables of a ring may be confidential: who may not deploy there does not read them.
        with_env = principal.may(Action.DEPLOY)
        return page_answer(Page([], None), [ring_document(ring, with_env=with_env) for ring in rings])

    async def create_ring(self, request: Request) -> Response:
        principal = principal_of(request)
        org_id, workspace_id = workspace_of(request)
        require_not_execution(principal, Action.ADMINISTER, org_id, workspace_id)  # Before the body is read.
        body = await read_model(request, RingBody)
        rule = check_rule(body.rollback.rule()) if body.rollback else None
        new = NewRing(
            body.name, body.order, body.auto_deploy, body.env, body.requires_approval, rule, body.minimum_isolation
        )
        ring = await self._engine.releases.create_ring(principal, org_id, workspace_id, new)
        return json_answer(ring_document(ring, with_env=True), 201)

    async def change_ring(self, request: Request) -> Response:
        principal = principal_of(request)
        org_id, workspace_id = workspace_of(request)
        ring_id = reference(request, "ring_id", "ring")
        require_not_execution(principal, Action.ADMINISTER, org_id, workspace_id)
        body = await read_model(request, RingChangeBody)
        ring = await self._engine.rollouts.change_ring(principal, org_id, workspace_id, ring_id, body.change())
        return json_answer(ring_document(ring, with_env=True))

    async def deploy(self, request: Request) -> Response:
        principal = principal_of(request)
        org_id, workspace_id = workspace_of(request)
        require_not_execution(principal, Action.DEPLOY, org_id, workspace_id)
        body = await read_model(request, DeploymentBody)
        deployment, is_new = await self._engine.rollouts.deploy(
            principal,
            org_id,
            workspace_id,
            body.component_id,
            body.ring_id,
            body.version,
            body.share,
            body.smoke_input if "smoke_input" in body.model_fields_set else UNCHANGED,
        )
        return json_answer(deployment_document(deployment), 201 if is_new else 200)

    async def deployments(self, request: Request) -> Response:
        cursor, limit = paging(request)
        page = await self._engine.releases.deployments(
            principal_of(request),
            *workspace_of(request),
            query_text(request, "component_id"),
            query_text(request, "ring_id"),
            cursor,
            limit,
            _state(request),
        )
        return page_answer(page, [deployment_document(deployment) for deployment in page.items])

    async def deployment(self, request: Request) -> Response:
        deployment_id = reference(request, "deployment_id", "deployment")
        where = principal_of(request), *workspace_of(request), deployment_id
        hold = hold_seconds(request.headers.get("prefer"))
        if hold is None:
            return json_answer(deployment_document(await self._engine.releases.get_deployment(*where)))
        found = await self._engine.rollouts.wait(*where, hold)
        return json_answer(deployment_document(found), 200, {"Preference-Applied": f"wait={hold:g}"})


def _state(request: Request) -> DeploymentState | None:
    value = query_text(request, "state")
    if value is None:
        return None
    try:
        return DeploymentState(value)
    except ValueError:
        raise invalid("state", value, "one of " + ", ".join(state.value for state in DeploymentState)) from None
