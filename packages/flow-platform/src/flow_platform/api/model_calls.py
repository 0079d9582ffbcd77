"""What models were called, and what a workspace configures of the model gateway."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from flow_platform.api.answers import json_answer, page_answer, paging, query_text
from flow_platform.api.body import read_object
from flow_platform.api.context import principal_of, workspace_of
from flow_platform.api.routing import PAGING, WORKSPACE, Parameter, Route
from flow_platform.domain import errors
from flow_platform.domain.model_call import ModelCall
from flow_platform.domain.principal import Action, Principal, Role
from flow_platform.engine.releases import check_workspace
from flow_platform.engine.validation import parse_model
from flow_platform.gateway.configuration import MAX_DOCUMENT_BYTES, WorkspaceModelSettings
from flow_platform.gateway.model_gateway import ModelGateway
from flow_platform.store.base import Page, Transaction
from flow_platform.store.model_table import ModelCallFilter
from flow_sdk.wire.management import PageDocument

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

_TAG: Final = "Models"


class ModelCallDocument(BaseModel):
    """One call of a model."""

    model_call_id: str
    execution_id: str | None
    transaction_id: str | None
    kind: str
    model: str = Field(description="`provider/model`: which answered, or was tried last.")
    created_at: datetime
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    is_estimated: bool = Field(description="The provider told no usage.")
    cost_micro_credits: int
    price_version: str | None = Field(description="Null: there is no price for the model.")
    latency_ms: float
    first_token_ms: float | None
    attempts: int
    is_streamed: bool
    error_code: str | None


class ModelCallRoutes:
    """The endpoints of one model gateway."""

    def __init__(self, engine: Engine, models: ModelGateway) -> None:
        self._engine = engine
        self._models = models

    def routes(self) -> list[Route]:
        return [
            Route(
                "GET",
                f"{WORKSPACE}/model-calls",
                self.page,
                "A page of calls of models.",
                tag=_TAG,
                answers={200: PageDocument},
                parameters=[Parameter("execution_id", "Only those.", {"type": "string"}), *PAGING],
            ),
            Route(
                "GET",
                f"{WORKSPACE}/model-settings",
                self.settings,
                "What the workspace configured of the model gateway.",
                tag=_TAG,
                answers={200: WorkspaceModelSettings},
            ),
            Route(
                "PUT",
                f"{WORKSPACE}/model-settings",
                self.configure,
                "Replaces it.",
                tag=_TAG,
                answers={200: WorkspaceModelSettings},
                body=WorkspaceModelSettings,
            ),
        ]

    async def page(self, request: Request) -> Response:
        principal = principal_of(request)
        org_id, workspace_id = workspace_of(request)
        _require_person(principal, Action.READ, org_id, workspace_id)
        where = ModelCallFilter(execution_id=query_text(request, "execution_id"))
        cursor, limit = paging(request)

        def operation(tx: Transaction) -> Page:
            check_workspace(tx, org_id, workspace_id)
            return tx.models.list_calls(org_id, workspace_id, where, cursor, limit)

        page = await self._engine.store.read(operation)
        return page_answer(page, [_document(call) for call in page.items])

    async def settings(self, request: Request) -> Response:
        org_id, workspace_id = workspace_of(request)
        _require_person(principal_of(request), Action.READ, org_id, workspace_id)
        await self._engine.store.read(lambda tx: check_workspace(tx, org_id, workspace_id))
        return _settings_answer(await self._models.settings(org_id, workspace_id))

    async def configure(self, request: Request) -> Response:
        principal = principal_of(request)
        org_id, workspace_id = workspace_of(request)
        principal.require(Action.ADMINISTER, org_id, workspace_id)
        content, body = await read_object(request)
        if len(content) > MAX_DOCUMENT_BYTES:
            raise errors.PayloadTooLarge(
                f"the settings have {len(content)} bytes: expected at most {MAX_DOCUMENT_BYTES}",
                details=[{"field": "body", "message": f"{len(content)} bytes, at most {MAX_DOCUMENT_BYTES}"}],
            )
        settings = parse_model(WorkspaceModelSettings, body)
        await self._engine.store.read(lambda tx: check_workspace(tx, org_id, workspace_id))
        await self._models.configure(org_id, workspace_id, settings, principal.subject)
        return _settings_answer(settings)


def _require_person(principal: Principal, action: Action, org_id: str, workspace_id: str) -> None:
    """An execution reads its own calls in the answers that it gets."""
    principal.require(action, org_id, workspace_id)
    if principal.role is Role.EXECUTION:
        raise errors.Forbidden("an execution reads no records of model calls and no settings")


def _settings_answer(settings: WorkspaceModelSettings) -> Response:
    return json_answer(settings.model_dump(mode="json", exclude_unset=True))


def _document(call: ModelCall) -> ModelCallDocument:
    return ModelCallDocument(
        model_call_id=call.id,
        execution_id=call.execution_id,
        transaction_id=call.billing_transaction_id,
        kind=call.kind,
        model=f"{call.provider}/{call.model}",
        created_at=call.created_at,
        prompt_tokens=call.usage.prompt,
        completion_tokens=call.usage.completion,
        cached_tokens=call.usage.cached,
        is_estimated=call.usage.is_estimated,
        cost_micro_credits=call.cost_micro_credits,
        price_version=call.price_version,
        latency_ms=call.latency_ms,
        first_token_ms=call.first_token_ms,
        attempts=call.attempts,
        is_streamed=call.is_streamed,
        error_code=call.error_code,
    )
