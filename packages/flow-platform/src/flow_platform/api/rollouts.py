"""Promotions, approvals, shares and rollbacks of deployments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from flow_platform.api.answers import json_answer, page_answer
from flow_platform.api.body import parse_json, read_body, read_model
from flow_platform.api.context import principal_of, reference, workspace_of
from flow_platform.api.ring_documents import deployment_document
from flow_platform.api.routing import WORKSPACE, Route
from flow_platform.domain.principal import Action
from flow_platform.engine.releases import require_not_execution
from flow_platform.engine.rollouts import MAX_SET
from flow_platform.engine.validation import parse_model
from flow_platform.store.base import Page
from flow_sdk.wire.management import DeploymentDocument, PageDocument

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

Body = TypeVar("Body", bound=BaseModel)
_TAG: Final = "Rings"

RingReference = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9_-]+$")]
Share = Annotated[int, Field(ge=0, le=99, description="Percent of new executions that it takes first; 0: all.")]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class PromotionBody(_Closed):
    """Where to; without `ring_id` to the next ring."""

    ring_id: RingReference | None = None
    share: Share = 0


class SetPromotionBody(PromotionBody):
    """Several deployments, of different components: all are promoted, or none."""

    deployment_ids: list[RingReference] = Field(min_length=1, max_length=MAX_SET)


class ShareBody(_Closed):
    share: int = Field(ge=1, le=100, description="Percent of new executions; 100: it turns active.")


class RollbackBody(_Closed):
    reason: str = Field("", max_length=500)


class RolloutRoutes:
    """The endpoints of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        every = f"{WORKSPACE}/deployments"
        one = f"{every}/{{deployment_id}}"
        return [
            Route(
                "POST",
                f"{every}/promote",
                self.promote_together,
                "Promotes the active deployments of several components, all or none.",
                tag=_TAG,
                answers={201: PageDocument},
                body=SetPromotionBody,
            ),
            Route(
                "POST",
                f"{one}/promote",
                self.promote,
                "Brings an active deployment's version to a later ring.",
                tag=_TAG,
                answers={201: DeploymentDocument},
                body=PromotionBody,
            ),
            Route(
                "POST",
                f"{one}/approve",
                self.approve,
                "Lets a deployment go on that waits for an approval.",
                tag=_TAG,
                answers={200: DeploymentDocument},
            ),
            Route(
                "POST",
                f"{one}/share",
                self.share,
                "Changes how many new executions a deployment on its way takes.",
                tag=_TAG,
                answers={200: DeploymentDocument},
                body=ShareBody,
            ),
            Route(
                "POST",
                f"{one}/rollback",
                self.roll_back,
                "Takes a deployment back: the one before it is active again.",
                tag=_TAG,
                answers={200: DeploymentDocument},
                body=RollbackBody,
            ),
        ]

    async def promote(self, request: Request) -> Response:
        deployment_id = reference(request, "deployment_id", "deployment")
        body = await self._optional(request, PromotionBody)
        made = await self._engine.rollouts.promote(
            principal_of(request), *workspace_of(request), [deployment_id], body.ring_id, body.share
        )
        return json_answer(deployment_document(made[0]), 201)

    async def promote_together(self, request: Request) -> Response:
        self._require(request)
        body = await read_model(request, SetPromotionBody)
        made = await self._engine.rollouts.promote(
            principal_of(request), *workspace_of(request), body.deployment_ids, body.ring_id, body.share
        )
        answer = page_answer(Page([], None), [deployment_document(deployment) for deployment in made])
        answer.status_code = 201
        return answer

    async def approve(self, request: Request) -> Response:
        deployment_id = reference(request, "deployment_id", "deployment")
        approved = await self._engine.rollouts.approve(principal_of(request), *workspace_of(request), deployment_id)
        return json_answer(deployment_document(approved))

    async def share(self, request: Request) -> Response:
        deployment_id = reference(request, "deployment_id", "deployment")
        self._require(request)
        body = await read_model(request, ShareBody)
        shared = await self._engine.rollouts.share(
            principal_of(request), *workspace_of(request), deployment_id, body.share
        )
        return json_answer(deployment_document(shared))

    async def roll_back(self, request: Request) -> Response:
        deployment_id = reference(request, "deployment_id", "deployment")
        body = await self._optional(request, RollbackBody)
        taken = await self._engine.rollouts.roll_back(
            principal_of(request), *workspace_of(request), deployment_id, body.reason
        )
        return json_answer(deployment_document(taken))

    async def _optional(self, request: Request, model: type[Body]) -> Body:
        """A body of which every field has a default may be left out."""
        self._require(request)
        body = await read_body(request)
        return parse_model(model, parse_json(body) if body else {})

    def _require(self, request: Request) -> None:
        """Before the body is read."""
        require_not_execution(principal_of(request), Action.DEPLOY, *workspace_of(request))
