"""The bodies of the management routes of services."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from flow_platform.api.auth_routes import printable
from flow_platform.domain.service import DEFAULT_TOKEN_LIFE, MAX_TIMEOUT_SECONDS, MAX_TOKEN_LIFE, AuthMode
from flow_platform.domain.service_path import MAX_PATH
from flow_sdk.wire.status import Kind

MAX_NAME: Final = 200
MAX_TEXT: Final = 4000
MAX_WORDS: Final = 20


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("expected text without NUL")
    return value


Name = Annotated[str, Field(max_length=MAX_NAME), AfterValidator(printable)]
Text = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_without_nul)]
Slug = Annotated[str, Field(min_length=1, max_length=63)]
Reference = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9_-]+$")]
Words = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=MAX_NAME), AfterValidator(printable)]],
    Field(max_length=MAX_WORDS),
]
Seconds = Annotated[float, Field(gt=0, le=MAX_TIMEOUT_SECONDS)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ServiceBody(_Body):
    """A service, for now a draft without endpoints."""

    slug: Slug = Field(description="Unique in the organization.")
    name: Name = ""
    description: Text = ""
    ring_id: Reference | None = Field(None, description="Id or name; the ring of lowest order when absent.")


class ServiceChange(_Body):
    """What is to be changed; absent fields stay as they are."""

    # The defaults are never used: only what was sent is looked at.
    name: Annotated[Name, Field(min_length=1)] = "-"
    description: Text = ""
    ring_id: Reference = "-"

    def changes(self) -> dict[str, Any]:
        given: dict[str, Any] = {name: getattr(self, name) for name in self.model_fields_set}
        if "ring_id" in given:
            given["ring"] = given.pop("ring_id")
        return given


class ComponentBody(_Body):
    """The component that answers."""

    kind: Annotated[Kind, Field(strict=False)]
    slug: Reference


class EndpointChange(_Body):
    """What is to be changed of an endpoint; absent fields stay as they are."""

    name: Slug = "-"
    method: str = Field("GET", max_length=10)
    path: str = Field("/", max_length=MAX_PATH)
    component: ComponentBody | None = None
    title: Name = ""
    description: Text = ""
    tags: Words = Field(default_factory=list[str])
    request_schema: dict[str, Any] | None = Field(None, description="Of the whole input; null: the component's.")
    response_schema: dict[str, Any] | None = Field(None, description="Null: the component's.")
    timeout_seconds: Seconds | None = Field(None, description="Null: the component's.")
    async_eligible: bool = False
    expose_as_agent_tool: bool = True
    tool_description: Text = ""
    when_to_use: Words = Field(default_factory=list[str])
    auth: Annotated[AuthMode, Field(strict=False)] = AuthMode.PLATFORM

    def fields(self) -> dict[str, Any]:
        """What was sent, by the names of `Endpoint`."""
        given: dict[str, Any] = {name: getattr(self, name) for name in self.model_fields_set}
        component = given.pop("component", None)
        if component is not None:
            given |= {"kind": component.kind, "component": component.slug}
        for name in ("tags", "when_to_use"):
            if name in given:
                given[name] = tuple(given[name])
        if "method" in given:
            given["method"] = given["method"].upper()
        return given


class EndpointBody(EndpointChange):
    """One method of one path, and the component that answers it."""

    name: Slug = Field(description="Unique in the service; tools and skills are called by it.")
    method: str = Field(max_length=10, description="GET, POST, PUT, PATCH or DELETE.")
    path: str = Field(max_length=MAX_PATH, description="Such as `/orders/{order_id}`.")
    component: ComponentBody  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]


class ServiceTokenBody(_Body):
    """A token for this service. Every token expires."""

    name: Annotated[Name, Field(min_length=1)]
    ttl_seconds: int = Field(int(DEFAULT_TOKEN_LIFE.total_seconds()), ge=60, le=int(MAX_TOKEN_LIFE.total_seconds()))

    @property
    def life(self) -> timedelta:
        return timedelta(seconds=self.ttl_seconds)
