"""Policies of a workspace over HTTP: what limits, orders and repeats its executions."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from flow_platform.api.answers import json_answer, page_answer, query_text
from flow_platform.api.body import read_model
from flow_platform.api.context import principal_of, workspace_of
from flow_platform.api.routing import WORKSPACE, Parameter, Route
from flow_platform.domain.execution import RetryPolicy
from flow_platform.domain.policy import Policy
from flow_platform.domain.principal import Action
from flow_platform.domain.rate_limit import MAX_COUNT, MAX_PERIOD, RateLimit
from flow_platform.engine.publish_request import RetryRequest
from flow_platform.engine.releases import require_not_execution
from flow_platform.store.base import Page
from flow_platform.store.policy_table import StoredPolicy
from flow_sdk.wire.management import PageDocument, RetryDocument
from flow_sdk.wire.policies import PolicyDocument, RateDocument

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

_TAG: Final = "Policies"
_Reference = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9_-]+$")]


class RateBody(BaseModel):
    """`count` starts in each period, of which `burst` may come at once."""

    model_config = ConfigDict(extra="forbid", strict=True)

    count: int = Field(ge=1, le=MAX_COUNT)
    period_seconds: float = Field(1.0, ge=0.001, le=MAX_PERIOD.total_seconds())
    burst: int = Field(1, ge=1, le=MAX_COUNT)


class PolicyBody(BaseModel):
    """The whole policy of its scope. What is absent or null is not said by it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    component_id: _Reference | None = Field(None, description="Id or slug; with `ring_id` the scope.")
    ring_id: _Reference | None = Field(None, description="Id or name.")
    concurrency: int | None = None
    concurrency_per_key: int | None = None
    rate: RateBody | None = None
    priority: int | None = None
    retry: RetryRequest | None = None
    max_queued: int | None = None
    weight: int | None = None


class PolicyRoutes:
    """The endpoints of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        path = f"{WORKSPACE}/policies"
        scope = [
            Parameter("component_id", "Component of the scope, by id or slug.", {"type": "string"}),
            Parameter("ring_id", "Ring of the scope, by id or name.", {"type": "string"}),
        ]
        return [
            Route("GET", path, self.list, "All policies.", tag=_TAG, answers={200: PageDocument}),
            Route(
                "PUT",
                path,
                self.put,
                "Sets the policy of a scope; it holds at once.",
                tag=_TAG,
                answers={200: PolicyDocument},
                body=PolicyBody,
            ),
            Route(
                "DELETE",
                path,
                self.delete,
                "Deletes the policy of a scope.",
                tag=_TAG,
                answers={204: "Deleted"},
                parameters=scope,
            ),
        ]

    async def list(self, request: Request) -> Response:
        stored = await self._engine.policies.list(principal_of(request), *workspace_of(request))
        return page_answer(Page([], None), [policy_document(one) for one in stored])

    async def put(self, request: Request) -> Response:
        principal = principal_of(request)
        org_id, workspace_id = workspace_of(request)
        require_not_execution(principal, Action.ADMINISTER, org_id, workspace_id)  # Before the body is read.
        policy = _policy(await read_model(request, PolicyBody))
        return json_answer(policy_document(await self._engine.policies.put(principal, org_id, workspace_id, policy)))

    async def delete(self, request: Request) -> Response:
        scope = Policy(query_text(request, "component_id"), query_text(request, "ring_id"))
        await self._engine.policies.delete(principal_of(request), *workspace_of(request), scope)
        return Response(status_code=204)


def _policy(body: PolicyBody) -> Policy:
    rate = body.rate
    return Policy(
        component_id=body.component_id,
        ring_id=body.ring_id,
        concurrency=body.concurrency,
        concurrency_per_key=body.concurrency_per_key,
        rate=rate and RateLimit(rate.count, timedelta(milliseconds=round(rate.period_seconds * 1000)), rate.burst),
        priority=body.priority,
        retry=RetryPolicy(**dict(body.retry)) if body.retry else None,
        max_queued=body.max_queued,
        weight=body.weight,
    )


def policy_document(stored: StoredPolicy) -> PolicyDocument:
    policy = stored.policy
    rate = policy.rate
    return PolicyDocument(
        component_id=policy.component_id,
        ring_id=policy.ring_id,
        concurrency=policy.concurrency,
        concurrency_per_key=policy.concurrency_per_key,
        rate=rate and RateDocument(count=rate.count, period_seconds=rate.period.total_seconds(), burst=rate.burst),
        priority=policy.priority,
        retry=policy.retry and RetryDocument.model_validate(vars(policy.retry)),
        max_queued=policy.max_queued,
        weight=policy.weight,
        updated_at=stored.updated_at,
        updated_by=stored.updated_by,
    )
