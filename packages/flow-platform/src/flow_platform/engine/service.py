"""The engine as a whole: its parts, put together and kept running."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import uuid
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, Final

import pydantic

from flow_platform.bus.connection import Bus, Message
from flow_platform.domain import errors
from flow_platform.domain.clock import Clock, SystemClock
from flow_platform.domain.ledger import RateCard
from flow_platform.engine import graphs
from flow_platform.engine.ahead import Ahead
from flow_platform.engine.api_keys import ApiKeys
from flow_platform.engine.audit import Audit
from flow_platform.engine.audit_retention import AuditRetention
from flow_platform.engine.audited import AuditedStore
from flow_platform.engine.billing import Billing
from flow_platform.engine.budgets import Budgets
from flow_platform.engine.cancel import CancelNotices
from flow_platform.engine.catalog import Catalog
from flow_platform.engine.checkpoints import Checkpoints
from flow_platform.engine.claims import Claims
from flow_platform.engine.credentials import Credentials
from flow_platform.engine.ends import Ends
from flow_platform.engine.executions import Executions
from flow_platform.engine.first_start import ensure_first_tenant
from flow_platform.engine.gateway_refusals import GatewayRefusals
from flow_platform.engine.grants import Grants, Leasing
from flow_platform.engine.heartbeats import Heartbeats
from flow_platform.engine.issuers import Issuers
from flow_platform.engine.link import Link
from flow_platform.engine.login import Logins
from flow_platform.engine.master_keys import MasterKeys
from flow_platform.engine.mcp_servers import McpServers
from flow_platform.engine.parts import Parts
from flow_platform.engine.policies import PolicyService
from flow_platform.engine.recorder import Recorder
from flow_platform.engine.releases import Releases
from flow_platform.engine.retry import Retries
from flow_platform.engine.rollout_watch import RolloutWatch
from flow_platform.engine.rollouts import Rollouts
from flow_platform.engine.scheduler import Scheduler
from flow_platform.engine.schedules import Schedules
from flow_platform.engine.secret_delivery import SecretDelivery
from flow_platform.engine.secrets import Secrets
from flow_platform.engine.sent_events import SentEvents
from flow_platform.engine.service_calls import ServiceCalls
from flow_platform.engine.service_tokens import ServiceTokens
from flow_platform.engine.services import Services
from flow_platform.engine.sessions import Sessions
from flow_platform.engine.stages import Stages
from flow_platform.engine.submit import Submitter
from flow_platform.engine.sweeper import Sweeper
from flow_platform.engine.tokens import Tokens
from flow_platform.engine.variables import Variables
from flow_platform.engine.wakeups import Wakeups
from flow_platform.engine.workspaces import Workspaces
from flow_platform.store.base import Store, Workspace
from flow_sdk.wire import subjects
from flow_sdk.wire.runner import BuildReply, BuildRequest, Claim, Heartbeat, Register
from flow_sdk.wire.secrets import SecretsRequest

logger = logging.getLogger(__name__)

WAKE: Final = "flow.wake"  # Between engines: JSON {"from", "keys"}.
BUILD_MARGIN_SECONDS: Final = 30.0  # The runner gives up first and says why.


class Engine:
    """Submits, claims, records, sweeps. One per process; any number of processes over one database.

    Args:
        store: Opened by `start`.
        nats_url: With the engine's credential.
        leasing: Times of the lease protocol.
        master_keys: None: there are no secrets.
        rates: What executions cost.
    """

    submitter: Submitter
    retries: Retries
    executions: Executions
    checkpoints: Checkpoints
    ahead: Ahead
    sent_events: SentEvents
    catalog: Catalog
    releases: Releases
    parts: Parts
    sessions: Sessions
    schedules: Schedules
    rollouts: Rollouts
    variables: Variables
    workspaces: Workspaces
    secrets: Secrets
    api_keys: ApiKeys
    credentials: Credentials
    audit: Audit
    services: Services
    service_tokens: ServiceTokens
    service_calls: ServiceCalls
    mcp_servers: McpServers
    policies: PolicyService
    budgets: Budgets
    billing: Billing
    tokens: Tokens
    workspace: Workspace

    def __init__(
        self,
        store: Store,
        nats_url: str,
        *,
        clock: Clock | None = None,
        leasing: Leasing | None = None,
        master_keys: MasterKeys | None = None,
        rates: RateCard | None = None,
    ) -> None:
        self.store = AuditedStore(store)
        self.clock = clock or SystemClock()
        self.leasing = leasing or Leasing()
        self._master_keys = master_keys or MasterKeys()
        self.issuers = Issuers()  # Set before the start, when others' tokens are believed, too.
        self.logins = Logins((), self.clock, lambda: self.tokens)  # As these.
        self.audit_kept: timedelta | None = None  # Set before the start, when entries are not kept for ever.
        self.rates = rates or RateCard()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._identity = uuid.uuid4().hex
        self._link = Link(nats_url, name=f"engine-{self._identity[:8]}")
        self._wakeups = Wakeups(self._tell_others if store.is_shared else None)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def wakeups(self) -> Wakeups:
        """To wait for what the engine does."""
        return self._wakeups

    @property
    def is_ready(self) -> bool:
        """Takes work: the store is open (else `start` had raised) and NATS is connected."""
        return self._link.is_up

    async def start(self) -> None:
        """Opens the store, makes the first tenant, and begins to work; NATS may come later.

        Raises:
            StoreUnavailable: The database cannot be opened.
        """
        await self.store.open()
        self.workspace = await ensure_first_tenant(self.store, self.clock)
        self.credentials = Credentials(self.store, self.clock, self._wakeups, self.workspace.org_id)
        await self.credentials.start()
        self.tokens = self.credentials.tokens
        self.audit = Audit(self.store, self.clock)
        self.secrets = Secrets(self.store, self.clock, self._master_keys)
        await self.secrets.start()
        self._secret_delivery = SecretDelivery(self.store, self.secrets)
        self._keep_records()
        stages = Stages()
        notices = CancelNotices(self._link.publish, self._wakeups)
        self.policies = PolicyService(self.store, self.clock, self._wakeups)
        await self.policies.start()
        grants = Grants(self.clock, self.leasing)
        self._claims = Claims(
            self.store,
            self.clock,
            self._wakeups,
            stages,
            grants,
            self.tokens.for_execution,
            self._link.put_object,
            self.leasing,
        )
        self.submitter = Submitter(self.store, self.clock, self._wakeups, stages, self._claims, grants, self.budgets)
        self.retries = Retries(self.store, self.clock, self._wakeups, stages, self._claims, grants)
        ends = Ends(graphs.advance)
        self.executions = Executions(self.store, self.clock, self._wakeups, notices, ends)
        self.service_calls = ServiceCalls(self.store, self.submitter, self.executions)
        self.checkpoints = Checkpoints(self.store, self.clock, self._wakeups, self.executions)
        self.ahead = Ahead(self.store, self.clock, self.executions)
        self.sent_events = SentEvents(
            self.store, self.clock, self._wakeups, self.executions, ends, grants, self._claims
        )
        self.rollouts = Rollouts(self.store, self.clock, self._wakeups, notices, ends)
        self.catalog = Catalog(self.store, self.clock, self._build, self.rollouts)
        self.mcp_servers = McpServers(self.store, self.clock, self.catalog, self.submitter, self.executions)
        self._recorder = Recorder(
            self.store,
            self.clock,
            self._wakeups,
            stages,
            notices,
            self._claims,
            grants,
            self._link.get_object,
            ends,
            self.rates,
        )
        self._heartbeats = Heartbeats(
            self.store,
            self.clock,
            self._wakeups,
            grants,
            ends,
            self.leasing,
            self._link.request,
            lambda: self.tokens.jwks(self.clock.now()),
        )
        self.sweeper = Sweeper(self.store, self.clock, self._wakeups, notices, ends)
        self.scheduler = Scheduler(self.store, self.clock, self._wakeups, stages, self._claims, grants, notices, ends)
        self.schedules = Schedules(self.store, self.clock, self._wakeups, stages, grants, self.scheduler)
        self._begin()

    def _keep_records(self) -> None:
        """What needs nothing but the store."""
        self._gateway_refusals = GatewayRefusals(self.store, self.clock, self.audit.refusals)
        self.api_keys = ApiKeys(self.store, self.clock)
        self.budgets = Budgets(self.store, self.clock)
        self.billing = Billing(self.store)
        self.services = Services(self.store, self.clock)
        self.service_tokens = ServiceTokens(self.store, self.clock)
        self.releases = Releases(self.store, self.clock)
        self.parts = Parts(self.store, self.clock)
        self.sessions = Sessions(self.store)
        self.variables = Variables(self.store)
        self.workspaces = Workspaces(self.store, self.clock)

    def _begin(self) -> None:
        self._spawn("link", self._link.connect(self._attach))
        self._spawn("rollouts", RolloutWatch(self.store, self.clock, self._wakeups, self.rollouts).run())
        self._spawn("policies", self.policies.run())
        self._spawn("credentials", self.credentials.run())
        self._spawn("refusals", self.audit.refusals.run())
        if self.audit_kept is not None:
            self._spawn("audit retention", AuditRetention(self.store, self.clock, self.audit_kept).run())
        self._spawn("sweeper", self.sweeper.run(self.leasing.lease, lambda: self._link.is_up))
        self._spawn("scheduler", self.scheduler.run())

    async def stop(self) -> None:
        """Stops working; whatever was answered is in the store."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(errors.StoreUnavailable):
            await self.audit.refusals.flush()
        await self._link.close()
        await self.api_keys.close()
        await self.service_tokens.close()
        await self.store.close()

    async def _attach(self, bus: Bus) -> None:
        await bus.serve(subjects.RUNNER_REGISTER, subjects.ENGINE_QUEUE, self._on_register)
        await bus.serve(subjects.RUNNER_HEARTBEAT, subjects.ENGINE_QUEUE, self._on_heartbeat)
        await bus.serve(subjects.RUNNER_CLAIM, subjects.ENGINE_QUEUE, self._on_claim)
        await bus.serve(subjects.RUNNER_SECRETS, subjects.ENGINE_QUEUE, self._on_secrets)
        await bus.subscribe(WAKE, self._on_wake)
        recorder = self._recorder
        for stream, handler in (
            (subjects.STREAM_OUTPUT, recorder.record_outputs),
            (subjects.STREAM_EVENTS, recorder.record_events),
            (subjects.STREAM_STATUS, recorder.record_statuses),
        ):
            self._spawn(f"consume {stream}", bus.consume(stream, "engine", handler))
        await bus.publish_core(subjects.ENGINE_STARTED, b"")

    async def _on_register(self, body: bytes) -> bytes:
        return (await self._heartbeats.register(Register.model_validate_json(body))).model_dump_json().encode()

    async def _on_heartbeat(self, body: bytes) -> bytes:
        heartbeat = Heartbeat.model_validate_json(body)
        reply = await self._heartbeats.heartbeat(heartbeat)
        if heartbeat.refusals and not reply.error:
            await self._gateway_refusals.note(heartbeat.runner_id, heartbeat.refusals)
        return reply.model_dump_json().encode()

    async def _on_claim(self, body: bytes) -> bytes:
        return await self._claims.claim(Claim.model_validate_json(body))

    async def _on_secrets(self, body: bytes) -> bytes:
        reply = await self._secret_delivery.deliver(SecretsRequest.model_validate_json(body))
        return reply.model_dump_json().encode()

    async def _on_wake(self, message: Message) -> None:
        told = json.loads(message.body)
        if told["from"] != self._identity:
            self._wakeups.notify_local(told["keys"])

    def _tell_others(self, keys: list[str]) -> None:
        self._link.publish(WAKE, json.dumps({"from": self._identity, "keys": keys}).encode())

    async def _build(self, request: BuildRequest) -> BuildReply:
        """Has a runner build and inspect a component.

        Raises:
            BusUnavailable: NATS is away, or no runner is connected that offers the isolation.
        """
        body = request.model_dump_json().encode()
        subject = subjects.build_request(request.isolation)
        answer = await self._link.request(subject, body, request.timeout_seconds + BUILD_MARGIN_SECONDS)
        try:
            return BuildReply.model_validate_json(answer)
        except pydantic.ValidationError as error:
            raise errors.BusUnavailable(f"a runner answered a build with {answer[:80]!r}") from error

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.append(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A background task that dies takes the process with it: a deaf engine is worse than a restarted one."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        logger.critical("background task %s died", task.get_name(), exc_info=error)
        if not self.failed.done():
            self.failed.set_exception(error)
