"""Rings and deployments of a workspace."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from flow_platform.api.answers import json_answer, page_answer, paging, query_text
from flow_platform.api.body import read_model
from flow_platform.api.context import principal_of, reference, workspace_of
from flow_platform.api.routing import PAGING, WORKSPACE, Parameter, Route
from flow_platform.domain.principal import ALLOWED, Action
from flow_platform.domain.release import Deployment, Ring
from flow_platform.engine.publish_request import check_variable
from flow_platform.engine.releases import NewRing, require_not_execution
from flow_platform.store.base import Page
from flow_sdk.wire.management import DeploymentDocument, PageDocument, RingDocument

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

MAX_VARIABLES: Final = 200  # Of a ring; all of them go into each container's environment.
MAX_VALUE: Final = 8192
_TAG: Final = "Rings"
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?")


def _ring_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("expected 1 to 63 of a-z, 0-9, '-' and '_', beginning and ending with a letter or digit")
    return value


def _variable_value(value: str) -> str:
    if "\0" in value:
        raise ValueError("expected text without NUL characters")
    return value


class RingBody(BaseModel):
    """A stage of the workspace; lower orders come first on the way to production."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, AfterValidator(_ring_name)]
    order: int = Field(ge=0, le=1_000_000)
    auto_deploy: bool = False
    env: dict[
        Annotated[str, AfterValidator(check_variable)],
        Annotated[str, Field(max_length=MAX_VALUE), AfterValidator(_variable_value)],
    ] = Field(default_factory=dict[str, str], max_length=MAX_VARIABLES)


class DeploymentBody(BaseModel):
    """Places a version (the newest when none is given) in a ring."""

    model_config = ConfigDict(extra="forbid", strict=True)

    component_id: str = Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9_-]+$")
    ring_id: str = Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9_-]+$")
    version: int | None = Field(None, ge=1, le=10**9)


class RingRoutes:
    """The endpoints of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        rings, deployments = f"{WORKSPACE}/rings", f"{WORKSPACE}/deployments"
        filters = tuple(Parameter(name, "Only those.", {"type": "string"}) for name in ("component_id", "ring_id"))
        return [
            Route("GET", rings, self.rings, "All rings, in their order.", tag=_TAG, answers={200: PageDocument}),
            Route(
                "POST", rings, self.create_ring, "Makes a ring.", tag=_TAG, answers={201: RingDocument}, body=RingBody
            ),
            Route(
                "POST",
                deployments,
                self.deploy,
                "Makes a version the active one: 201, or 200 when it is already.",
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
                "One deployment.",
                tag=_TAG,
                answers={200: DeploymentDocument},
            ),
        ]

    async def rings(self, request: Request) -> Response:
        principal = principal_of(request)
        rings = await self._engine.releases.rings(principal, *workspace_of(request))
        # Variables of a ring may be confidential: who may not deploy there does not read them.
        with_env = Action.DEPLOY in ALLOWED[principal.role]
        return page_answer(Page([], None), [ring_document(ring, with_env=with_env) for ring in rings])

    async def create_ring(self, request: Request) -> Response:
        principal = principal_of(request)
        org_id, workspace_id = workspace_of(request)
        require_not_execution(principal, Action.ADMINISTER, org_id, workspace_id)  # Before the body is read.
        body = await read_model(request, RingBody)
        new = NewRing(body.name, body.order, body.auto_deploy, body.env)
        ring = await self._engine.releases.create_ring(principal, org_id, workspace_id, new)
        return json_answer(ring_document(ring, with_env=True), 201)

    async def deploy(self, request: Request) -> Response:
        principal = principal_of(request)
        org_id, workspace_id = workspace_of(request)
        require_not_execution(principal, Action.DEPLOY, org_id, workspace_id)
        body = await read_model(request, DeploymentBody)
        deployment, is_new = await self._engine.rollouts.deploy(
            principal, org_id, workspace_id, body.component_id, body.ring_id, body.version
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
        )
        return page_answer(page, [deployment_document(deployment) for deployment in page.items])

    async def deployment(self, request: Request) -> Response:
        found = await self._engine.releases.get_deployment(
            principal_of(request), *workspace_of(request), reference(request, "deployment_id", "deployment")
        )
        return json_answer(deployment_document(found))


def ring_document(ring: Ring, *, with_env: bool) -> RingDocument:
    return RingDocument(
        id=ring.id,
        name=ring.name,
        order=ring.order,
        auto_deploy=ring.auto_deploy,
        env=ring.env if with_env else {},
        created_at=ring.created_at,
    )


def deployment_document(deployment: Deployment) -> DeploymentDocument:
    return DeploymentDocument(
        deployment_id=deployment.id,
        component_id=deployment.component_id,
        version=deployment.version,
        ring_id=deployment.ring_id,
        state=deployment.state.value,
        created_at=deployment.created_at,
        activated_at=deployment.activated_at,
    )
