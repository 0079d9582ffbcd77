"""Variables of organizations and workspaces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from flow_platform.api.answers import json_answer
from flow_platform.api.body import read_model
from flow_platform.api.context import principal_of
from flow_platform.api.routing import WORKSPACE, Route
from flow_platform.domain.principal import Action
from flow_platform.domain.variable_names import check_variable
from flow_platform.engine.releases import require_not_execution
from flow_sdk.wire.management import VariablesDocument

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

MAX_VARIABLES: Final = 200  # Of one scope; all of them go into each container's environment.
MAX_VALUE: Final = 8192
_TAG: Final = "Rings"
_ORGANIZATION: Final = "/api/v1/orgs/{org_id}"


def _variable_value(value: str) -> str:
    if "\0" in value:
        raise ValueError("expected text without NUL characters")
    return value


VariableMap = Annotated[
    dict[
        Annotated[str, AfterValidator(check_variable)],
        Annotated[str, Field(max_length=MAX_VALUE), AfterValidator(_variable_value)],
    ],
    Field(max_length=MAX_VARIABLES),
]


class VariablesBody(BaseModel):
    """All variables of the scope; those left out are removed."""

    model_config = ConfigDict(extra="forbid", strict=True)

    env: VariableMap


class VariableRoutes:
    """The endpoints of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        return [
            route
            for scope, what in ((_ORGANIZATION, "organization"), (WORKSPACE, "workspace"))
            for route in (
                Route(
                    "GET",
                    f"{scope}/variables",
                    self.variables,
                    f"Variables of the {what} itself.",
                    tag=_TAG,
                    answers={200: VariablesDocument},
                ),
                Route(
                    "PUT",
                    f"{scope}/variables",
                    self.replace,
                    f"Replaces the variables of the {what}.",
                    tag=_TAG,
                    answers={200: VariablesDocument},
                    body=VariablesBody,
                ),
            )
        ]

    async def variables(self, request: Request) -> Response:
        env = await self._engine.variables.get(principal_of(request), *_scope(request))
        return json_answer(VariablesDocument(env=env))

    async def replace(self, request: Request) -> Response:
        principal = principal_of(request)
        require_not_execution(principal, Action.ADMINISTER, *_scope(request))  # Before the body is read.
        body = await read_model(request, VariablesBody)
        env = await self._engine.variables.replace(principal, *_scope(request), body.env)
        return json_answer(VariablesDocument(env=env))


def _scope(request: Request) -> tuple[str, str | None]:
    return request.path_params["org_id"], request.path_params.get("workspace_id")
