"""Publishing components, and looking at them and their versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import Response

from flow_platform.api.answers import json_answer, page_answer, paging, whole
from flow_platform.api.body import read_model
from flow_platform.api.context import principal_of, reference, workspace_of
from flow_platform.api.routing import PAGING, WORKSPACE, Endpoint, Route
from flow_platform.domain import errors
from flow_platform.domain.component import Component, Version
from flow_platform.domain.principal import Action
from flow_platform.engine.agent_request import AgentRequest
from flow_platform.engine.catalog import PUBLISHABLE, Published
from flow_platform.engine.publish_request import PublishRequest
from flow_platform.engine.releases import require_not_execution
from flow_sdk.wire.management import (
    ComponentDocument,
    PageDocument,
    PublishedDocument,
    RetryDocument,
    VersionDocument,
)
from flow_sdk.wire.status import Kind

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

_TAG: Final = "Components"
_MAX_VERSION: Final = 10**9


class ComponentRoutes:
    """The endpoints of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        return [made for kind in PUBLISHABLE for made in self._routes_of(kind)]

    def _routes_of(self, kind: Kind) -> list[Route]:
        every, word = f"{WORKSPACE}/{kind.path}", kind.value.replace("_", " ")
        one = f"{every}/{{component_id}}"
        return [
            Route(
                "POST",
                every,
                self._publish(kind),
                f"Publishes a {word}: 201 with the new version, 200 with the one that has the content.",
                tag=_TAG,
                answers={201: PublishedDocument, 200: PublishedDocument},
                body=AgentRequest if kind is Kind.AGENT else PublishRequest,
            ),
            Route(
                "GET",
                every,
                self._page(kind),
                f"A page of {word}s.",
                tag=_TAG,
                answers={200: PageDocument},
                parameters=PAGING,
            ),
            Route(
                "GET",
                one,
                self._get(kind),
                f"A {word} and its newest version.",
                tag=_TAG,
                answers={200: ComponentDocument},
            ),
            Route(
                "GET",
                f"{one}/versions",
                self._versions(kind),
                f"A page of a {word}'s versions, without code.",
                tag=_TAG,
                answers={200: PageDocument},
                parameters=PAGING,
            ),
            Route(
                "GET",
                f"{one}/versions/{{number}}",
                self._version(kind),
                f"One version of a {word}.",
                tag=_TAG,
                answers={200: VersionDocument},
            ),
        ]

    def _publish(self, kind: Kind) -> Endpoint:
        async def publish(request: Request) -> Response:
            principal = principal_of(request)
            org_id, workspace_id = workspace_of(request)
            require_not_execution(principal, Action.PUBLISH, org_id, workspace_id)  # Before the body is read.
            wanted = await read_model(request, AgentRequest if kind is Kind.AGENT else PublishRequest)
            published = await self._engine.catalog.publish(principal, org_id, workspace_id, kind, wanted)
            return json_answer(published_document(published), 201 if published.is_new else 200)

        return publish

    def _page(self, kind: Kind) -> Endpoint:
        async def page(request: Request) -> Response:
            cursor, limit = paging(request)
            found = await self._engine.catalog.list(principal_of(request), *workspace_of(request), kind, cursor, limit)
            return page_answer(found, [component_document(component, None) for component in found.items])

        return page

    def _get(self, kind: Kind) -> Endpoint:
        async def get(request: Request) -> Response:
            component, newest = await self._engine.catalog.get(
                principal_of(request),
                *workspace_of(request),
                kind,
                reference(request, "component_id", kind.value),
            )
            return json_answer(component_document(component, newest))

        return get

    def _versions(self, kind: Kind) -> Endpoint:
        async def versions(request: Request) -> Response:
            cursor, limit = paging(request)
            found = await self._engine.catalog.versions(
                principal_of(request),
                *workspace_of(request),
                kind,
                reference(request, "component_id", kind.value),
                cursor,
                limit,
            )
            return page_answer(found, [version_document(version, full=False) for version in found.items])

        return versions

    def _version(self, kind: Kind) -> Endpoint:
        async def version(request: Request) -> Response:
            found = await self._engine.catalog.get_version(
                principal_of(request),
                *workspace_of(request),
                kind,
                reference(request, "component_id", kind.value),
                _number(request),
            )
            return json_answer(version_document(found, full=True))

        return version


def _number(request: Request) -> int:
    value: str = request.path_params["number"]
    try:
        return whole("version", value, 1, _MAX_VERSION)
    except errors.InvalidInput:
        raise errors.NotFound(f"version {value[:80]!r} not found") from None


def published_document(published: Published) -> PublishedDocument:
    component, version = published.component, published.version
    return PublishedDocument(
        id=component.id,
        slug=component.slug,
        kind=component.kind,
        name=component.name,
        version=version.number,
        digest=version.digest,
        input_schema=version.input_schema,
        output_schema=version.output_schema,
    )


def component_document(component: Component, newest: Version | None) -> ComponentDocument:
    return ComponentDocument(
        id=component.id,
        kind=component.kind,
        slug=component.slug,
        name=component.name,
        description=component.description,
        tags=list(component.tags),
        latest_version=component.latest_version,
        created_at=component.created_at,
        newest=version_document(newest, full=True) if newest else None,
    )


def version_document(version: Version, *, full: bool) -> VersionDocument:
    definition = version.definition
    retry = definition.retry
    return VersionDocument(
        component_id=version.component_id,
        version=version.number,
        digest=version.digest,
        created_at=version.created_at,
        entry_point=definition.entry_point,
        language=definition.language,
        dependencies=list(definition.dependencies),
        timeout_seconds=definition.timeout_seconds,
        retry=RetryDocument(
            max_attempts=retry.max_attempts,
            initial_interval_seconds=retry.initial_interval_seconds,
            backoff_coefficient=retry.backoff_coefficient,
            maximum_interval_seconds=retry.maximum_interval_seconds,
            non_retryable_errors=list(retry.non_retryable_errors),
        ),
        limits=definition.limits,
        network=list(definition.network),
        secrets=list(definition.secrets),
        injected=list(definition.injected),
        isolation=definition.isolation,
        requires_context=definition.requires_context,
        input_schema=version.input_schema,
        output_schema=version.output_schema,
        code=definition.code if full else None,
        examples=list(definition.examples) if full else None,
        graph=definition.graph if full else None,
        agent=definition.agent if full else None,
    )
