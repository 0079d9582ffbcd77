"""Publishing parts of agents: models, prompts, tools, schemas and states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import BaseModel, Field, create_model
from starlette.requests import Request
from starlette.responses import Response

from flow_platform.api.answers import json_answer, page_answer, paging
from flow_platform.api.body import read_object
from flow_platform.api.context import principal_of, reference, workspace_of
from flow_platform.api.routing import PAGING, WORKSPACE, Endpoint, Route
from flow_platform.domain.part import Part, PartKind, PartVersion
from flow_platform.domain.principal import Action
from flow_platform.engine.agent_request import CONTENTS
from flow_platform.engine.closed import Closed
from flow_platform.engine.json_schema import check_schema
from flow_platform.engine.publish_request import MAX_DESCRIPTION, MAX_NAME, Text
from flow_platform.engine.releases import require_not_execution
from flow_platform.engine.schema_references import check_references
from flow_platform.engine.validation import parse_model
from flow_platform.store.base import Page
from flow_sdk.wire.agents import PartDocument, PartVersionDocument, PublishedPartDocument
from flow_sdk.wire.management import PageDocument

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

_TAG: Final = "Parts of agents"
_NAMES: Final = ("slug", "name", "description")


class PartName(Closed):
    """What every part has beside its content."""

    slug: str = Field(max_length=63)
    name: Annotated[Text | None, Field(max_length=MAX_NAME)] = None
    description: Annotated[Text | None, Field(max_length=MAX_DESCRIPTION)] = None


def _body(kind: PartKind) -> type[BaseModel]:
    """For the documentation: name and content in one object, as they are sent."""
    return create_model(f"{kind.value.capitalize()}Body", __base__=(PartName, CONTENTS[kind]))


class PartRoutes:
    """The endpoints of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        return [made for kind in PartKind for made in self._routes_of(kind)]

    def _routes_of(self, kind: PartKind) -> list[Route]:
        every = f"{WORKSPACE}/{kind.path}"
        one = f"{every}/{{part_id}}"
        return [
            Route(
                "POST",
                every,
                self._publish(kind),
                f"Publishes a {kind.value}: 201 with the new version, 200 with the one that has the content.",
                tag=_TAG,
                answers={201: PublishedPartDocument, 200: PublishedPartDocument},
                body=_body(kind),
            ),
            Route(
                "GET",
                every,
                self._page(kind),
                f"A page of {kind.path}.",
                tag=_TAG,
                answers={200: PageDocument},
                parameters=PAGING,
            ),
            Route(
                "GET",
                one,
                self._get(kind),
                f"A {kind.value} and its newest version.",
                tag=_TAG,
                answers={200: PartDocument},
            ),
            Route(
                "GET",
                f"{one}/versions",
                self._versions(kind),
                f"The versions of a {kind.value}.",
                tag=_TAG,
                answers={200: PageDocument},
            ),
        ]

    def _publish(self, kind: PartKind) -> Endpoint:
        async def publish(request: Request) -> Response:
            principal = principal_of(request)
            org_id, workspace_id = workspace_of(request)
            require_not_execution(principal, Action.PUBLISH, org_id, workspace_id)  # Before the body is read.
            _, body = await read_object(request)
            named = parse_model(PartName, {field: body[field] for field in _NAMES if field in body})
            given = {field: value for field, value in body.items() if field not in _NAMES or field in _own(kind)}
            content: dict[str, Any] = parse_model(CONTENTS[kind], given).model_dump(mode="json", by_alias=True)
            if kind is PartKind.SCHEMA:
                check_schema("schema", content["schema"])
                check_references("schema", content["schema"])
            published = await self._engine.parts.publish(
                principal,
                org_id,
                workspace_id,
                kind,
                named.slug,
                content,
                name=named.name,
                description=named.description,
            )
            document = PublishedPartDocument(
                id=published.part.id,
                kind=kind.value,
                slug=published.part.slug,
                name=published.part.name,
                version=published.version.number,
                digest=published.version.digest,
            )
            return json_answer(document, 201 if published.is_new else 200)

        return publish

    def _page(self, kind: PartKind) -> Endpoint:
        async def page(request: Request) -> Response:
            cursor, limit = paging(request)
            found = await self._engine.parts.list(principal_of(request), *workspace_of(request), kind, cursor, limit)
            return page_answer(
                Page(list(found.items), found.next_cursor), [_document(part, None) for part in found.items]
            )

        return page

    def _get(self, kind: PartKind) -> Endpoint:
        async def get(request: Request) -> Response:
            part_id = reference(request, "part_id", kind.value)
            part, newest = await self._engine.parts.get(principal_of(request), *workspace_of(request), kind, part_id)
            return json_answer(_document(part, newest))

        return get

    def _versions(self, kind: PartKind) -> Endpoint:
        async def versions(request: Request) -> Response:
            part_id = reference(request, "part_id", kind.value)
            found = await self._engine.parts.versions(principal_of(request), *workspace_of(request), kind, part_id)
            return page_answer(Page([], None), [_version_document(version) for version in found])

        return versions


def _own(kind: PartKind) -> frozenset[str]:
    """Fields that are the content's as well: a tool's name and description are for the model."""
    return frozenset(_NAMES[1:]) if kind is PartKind.TOOL else frozenset()


def _document(part: Part, newest: PartVersion | None) -> PartDocument:
    return PartDocument(
        id=part.id,
        kind=part.kind.value,
        slug=part.slug,
        name=part.name,
        description=part.description,
        latest_version=part.latest_version,
        created_at=part.created_at,
        newest=_version_document(newest) if newest else None,
    )


def _version_document(version: PartVersion) -> PartVersionDocument:
    return PartVersionDocument(
        version=version.number, digest=version.digest, content=version.content, created_at=version.created_at
    )
