"""The HTTP API, put together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.types import ASGIApp

from flow_platform.api.api_keys import ApiKeyRoutes
from flow_platform.api.audit import AuditRoutes
from flow_platform.api.auth_routes import TokenRoutes
from flow_platform.api.billing import BillingRoutes
from flow_platform.api.checkpoints import CheckpointRoutes
from flow_platform.api.components import ComponentRoutes
from flow_platform.api.credential_routes import CredentialRoutes
from flow_platform.api.events import EventRoutes
from flow_platform.api.executions import ExecutionRoutes
from flow_platform.api.front_page import FrontPage
from flow_platform.api.gateway import GatewayRoutes
from flow_platform.api.health import HealthRoutes
from flow_platform.api.inline import InlineRoutes
from flow_platform.api.login import LoginRoutes
from flow_platform.api.mcp import McpRoutes
from flow_platform.api.mcp_servers import McpServerRoutes
from flow_platform.api.model_calls import ModelCallRoutes
from flow_platform.api.onion import Onion
from flow_platform.api.openapi import DocumentRoutes
from flow_platform.api.parts import PartRoutes
from flow_platform.api.policies import PolicyRoutes
from flow_platform.api.retry import RetryRoutes
from flow_platform.api.rings import RingRoutes
from flow_platform.api.rollouts import RolloutRoutes
from flow_platform.api.routing import Router
from flow_platform.api.schedules import ScheduleRoutes
from flow_platform.api.secrets import SecretRoutes
from flow_platform.api.service_calls import ServiceCallRoutes
from flow_platform.api.services import ServiceRoutes
from flow_platform.api.sessions import SessionRoutes
from flow_platform.api.variables import VariableRoutes
from flow_platform.api.workspaces import WorkspaceRoutes
from flow_platform.domain.client_address import TrustedProxies
from flow_platform.gateway.keys import SecretKeys
from flow_platform.gateway.model_gateway import ModelGateway
from flow_platform.metrics import Metrics

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

MAX_BODY_BYTES: Final = 33 << 20  # An input of 32 MiB, and what is around it.


def create_app(
    engine: Engine,
    *,
    metrics: Metrics | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
    models: ModelGateway | None = None,
    proxies: TrustedProxies | None = None,
) -> ASGIApp:
    """The application over one engine, which must have been started before the first request.

    Args:
        engine: Does what is asked.
        metrics: Of the process; its own when None.
        max_body_bytes: Of one request.
        models: Calls models; one with the built-in providers and the workspaces' own keys when None.
        proxies: In front of it, whose word on the client's address is taken; none when None.
    """
    metrics = metrics or Metrics()
    models = models or ModelGateway(engine.store, engine.clock, SecretKeys(engine.secrets, {}), rates=engine.rates)
    routes = [  # In the order of heat: the router tries one after the other.
        *ExecutionRoutes(engine).routes(),
        *CheckpointRoutes(engine).routes(),
        *RetryRoutes(engine).routes(),
        *InlineRoutes(engine).routes(),
        *EventRoutes(engine, metrics).routes(),
        *GatewayRoutes(engine, models).routes(),
        *ModelCallRoutes(engine, models).routes(),
        *ComponentRoutes(engine).routes(),
        *SessionRoutes(engine).routes(),
        *PartRoutes(engine).routes(),
        *RolloutRoutes(engine).routes(),
        *RingRoutes(engine).routes(),
        *VariableRoutes(engine).routes(),
        *WorkspaceRoutes(engine).routes(),
        *BillingRoutes(engine).routes(),
        *ScheduleRoutes(engine).routes(),
        *SecretRoutes(engine).routes(),
        *ApiKeyRoutes(engine).routes(),
        *PolicyRoutes(engine).routes(),
        *TokenRoutes(engine).routes(),
        *CredentialRoutes(engine).routes(),
        *AuditRoutes(engine).routes(),
        *ServiceRoutes(engine).routes(),
        *McpRoutes(engine).routes(),
        *McpServerRoutes(engine).routes(),
        *ServiceCallRoutes(engine).routes(),
        *HealthRoutes(engine, metrics).routes(),
        *LoginRoutes(engine).routes(),
        *FrontPage(engine).routes(),
    ]
    router = Router([*routes, *DocumentRoutes(routes).routes()])
    return Onion(router, engine, metrics, max_body_bytes, proxies or TrustedProxies())
