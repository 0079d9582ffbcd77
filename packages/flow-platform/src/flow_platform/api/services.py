"""Services of a workspace: drafts, publishing, tokens. Calling them is in `service_calls`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import Response

from flow_platform.api.answers import json_answer, page_answer, paging
from flow_platform.api.auth import require_no_api_key
from flow_platform.api.body import read_model
from flow_platform.api.context import context_of, principal_of, reference, workspace_of
from flow_platform.api.routing import PAGING, WORKSPACE, Route
from flow_platform.api.service_bodies import (
    EndpointBody,
    EndpointChange,
    ServiceBody,
    ServiceChange,
    ServiceTokenBody,
)
from flow_platform.domain.principal import Action
from flow_platform.domain.service import Endpoint, PublishedService, Service, ServiceToken
from flow_platform.engine.releases import require_not_execution
from flow_platform.engine.services import ServiceView
from flow_platform.engine.skills import base_path
from flow_platform.store.base import Page
from flow_sdk.wire.management import PageDocument
from flow_sdk.wire.service import (
    EndpointComponent,
    EndpointDocument,
    PublishedServiceDocument,
    ServiceDocument,
    ServiceTokenDocument,
    ServiceVersionDocument,
)

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

_TAG: Final = "Services"


class ServiceRoutes:
    """The endpoints of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        every = f"{WORKSPACE}/services"
        one = f"{every}/{{service_id}}"
        endpoint = f"{one}/endpoints/{{endpoint_id}}"
        token = f"{one}/tokens"
        doc, end = {200: ServiceDocument}, {200: EndpointDocument}
        page = {200: PageDocument}
        return [
            Route("GET", every, self.page, "A page of services.", tag=_TAG, answers=page, parameters=PAGING),
            Route("POST", every, self.create, "Makes a draft.", _TAG, {201: ServiceDocument}, ServiceBody),
            Route("GET", one, self.get, "One service, its draft and its versions.", tag=_TAG, answers=doc),
            Route("PATCH", one, self.change, "Changes fields.", tag=_TAG, answers=doc, body=ServiceChange),
            Route("DELETE", one, self.delete, "Deletes it, with its versions.", tag=_TAG, answers={204: "Deleted"}),
            Route(
                "POST",
                f"{one}/endpoints",
                self.add_endpoint,
                "Adds an endpoint to the draft.",
                tag=_TAG,
                answers={201: EndpointDocument},
                body=EndpointBody,
            ),
            Route(
                "PATCH",
                endpoint,
                self.change_endpoint,
                "Changes an endpoint of the draft.",
                tag=_TAG,
                answers=end,
                body=EndpointChange,
            ),
            Route(
                "DELETE",
                endpoint,
                self.delete_endpoint,
                "Takes an endpoint out of the draft.",
                tag=_TAG,
                answers={204: "Deleted"},
            ),
            Route(
                "POST",
                f"{one}/publish",
                self.publish,
                "Freezes the draft as the next version, and makes its skills.",
                tag=_TAG,
                answers={201: PublishedServiceDocument, 200: PublishedServiceDocument},
            ),
            Route(
                "POST",
                token,
                self.create_token,
                "Makes a token; the answer is the only one that has it.",
                tag=_TAG,
                answers={201: ServiceTokenDocument},
                body=ServiceTokenBody,
            ),
            Route("GET", token, self.tokens, "All tokens, without themselves.", tag=_TAG, answers=page),
            Route(
                "DELETE",
                f"{token}/{{token_id}}",
                self.delete_token,
                "Revokes a token.",
                tag=_TAG,
                answers={204: "Revoked"},
            ),
        ]

    async def page(self, request: Request) -> Response:
        cursor, limit = paging(request)
        page = await self._engine.services.list(principal_of(request), *workspace_of(request), cursor, limit)
        return page_answer(Page([], page.next_cursor), [service_document(service) for service in page.items])

    async def create(self, request: Request) -> Response:
        self._require(request, Action.PUBLISH)
        body = await read_model(request, ServiceBody)
        made = await self._engine.services.create(
            principal_of(request), *workspace_of(request), body.slug, body.name, body.description, body.ring_id
        )
        return json_answer(_whole(ServiceView(made, (), ())), 201)

    async def get(self, request: Request) -> Response:
        view = await self._engine.services.get(principal_of(request), *workspace_of(request), _id(request))
        return json_answer(_whole(view))

    async def change(self, request: Request) -> Response:
        self._require(request, Action.PUBLISH)
        body = await read_model(request, ServiceChange)
        view = await self._engine.services.change(
            principal_of(request), *workspace_of(request), _id(request), body.changes()
        )
        return json_answer(_whole(view))

    async def delete(self, request: Request) -> Response:
        await self._engine.services.delete(principal_of(request), *workspace_of(request), _id(request))
        return Response(status_code=204)

    async def add_endpoint(self, request: Request) -> Response:
        self._require(request, Action.PUBLISH)
        body = await read_model(request, EndpointBody)
        added = await self._engine.services.add_endpoint(
            principal_of(request), *workspace_of(request), _id(request), body.fields()
        )
        return json_answer(endpoint_document(added), 201)

    async def change_endpoint(self, request: Request) -> Response:
        self._require(request, Action.PUBLISH)
        body = await read_model(request, EndpointChange)
        changed = await self._engine.services.change_endpoint(
            principal_of(request), *workspace_of(request), _id(request), _endpoint(request), body.fields()
        )
        return json_answer(endpoint_document(changed))

    async def delete_endpoint(self, request: Request) -> Response:
        await self._engine.services.delete_endpoint(
            principal_of(request), *workspace_of(request), _id(request), _endpoint(request)
        )
        return Response(status_code=204)

    async def publish(self, request: Request) -> Response:
        published, is_new = await self._engine.services.publish(
            principal_of(request), *workspace_of(request), _id(request)
        )
        document = PublishedServiceDocument(
            **version_document(published).model_dump(),
            service_id=published.service_id,
            skills=json.loads(published.skills),
        )
        return json_answer(document, 201 if is_new else 200)

    async def create_token(self, request: Request) -> Response:
        self._require(request, Action.ADMINISTER)
        require_no_api_key(context_of(request.scope), "makes no tokens of services")
        body = await read_model(request, ServiceTokenBody)
        record, token = await self._engine.service_tokens.create(
            principal_of(request), *workspace_of(request), _id(request), body.name, body.life
        )
        return json_answer(token_document(record, token), 201, {"Cache-Control": "no-store"})

    async def tokens(self, request: Request) -> Response:
        found = await self._engine.service_tokens.of_service(
            principal_of(request), *workspace_of(request), _id(request)
        )
        return page_answer(Page([], None), [token_document(token) for token in found])

    async def delete_token(self, request: Request) -> Response:
        token_id = reference(request, "token_id", "token")
        await self._engine.service_tokens.delete(principal_of(request), *workspace_of(request), _id(request), token_id)
        return Response(status_code=204)

    def _require(self, request: Request, action: Action) -> None:
        """Before the body is read."""
        require_not_execution(principal_of(request), action, *workspace_of(request))


def _id(request: Request) -> str:
    return reference(request, "service_id", "service")


def _endpoint(request: Request) -> str:
    return reference(request, "endpoint_id", "endpoint")


def _whole(view: ServiceView) -> ServiceDocument:
    return service_document(view.service).model_copy(
        update={
            "endpoints": [endpoint_document(endpoint) for endpoint in view.endpoints],
            "versions": [version_document(version) for version in view.versions],
        }
    )


def service_document(service: Service) -> ServiceDocument:
    """As a list shows it."""
    return ServiceDocument(
        id=service.id,
        slug=service.slug,
        name=service.name,
        description=service.description,
        ring_id=service.ring_id,
        status="published" if service.latest_version else "draft",
        latest_version=service.latest_version,
        base_path=base_path(service),
        created_at=service.created_at,
        created_by=service.created_by,
        updated_at=service.updated_at,
    )


def endpoint_document(endpoint: Endpoint) -> EndpointDocument:
    return EndpointDocument(
        id=endpoint.id,
        name=endpoint.name,
        method=endpoint.method,
        path=endpoint.path,
        component=EndpointComponent(kind=endpoint.kind, slug=endpoint.component),
        title=endpoint.shown_title,
        description=endpoint.description,
        tags=list(endpoint.tags),
        request_schema=endpoint.request_schema,
        response_schema=endpoint.response_schema,
        timeout_seconds=endpoint.timeout_seconds,
        async_eligible=endpoint.async_eligible,
        expose_as_agent_tool=endpoint.expose_as_agent_tool,
        tool_description=endpoint.tool_description,
        when_to_use=list(endpoint.when_to_use),
        auth=endpoint.auth.value,
    )


def version_document(version: PublishedService) -> ServiceVersionDocument:
    return ServiceVersionDocument(
        version=version.number,
        digest=version.digest,
        checksum=version.checksum,
        created_at=version.created_at,
        created_by=version.created_by,
    )


def token_document(record: ServiceToken, token: str | None = None) -> ServiceTokenDocument:
    return ServiceTokenDocument(
        id=record.id,
        name=record.name,
        prefix=record.shown,
        created_at=record.created_at,
        created_by=record.created_by,
        expires_at=record.expires_at,
        last_used_at=record.last_used_at,
        token=token,
    )
