"""Calling endpoints of published services: who may, which one is meant, and the execution that answers.

A call is an execution like any other, in the service's ring; `config.service` says of which endpoint it is the call.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final, cast

from flow_platform.domain import errors
from flow_platform.domain.execution import Execution
from flow_platform.domain.principal import Action, Principal, Role
from flow_platform.domain.service import AuthMode, Endpoint, PublishedService, Service, ServiceToken, canonical
from flow_platform.domain.service_path import match, most_literal_first
from flow_platform.engine.audited import submitter_of
from flow_platform.engine.executions import Executions, check_token_is_live
from flow_platform.engine.service_tokens import refused
from flow_platform.engine.submission import Submission
from flow_platform.engine.submit import IdempotencyKey, Submitter, check_key
from flow_platform.store.base import Store, Transaction
from flow_sdk.wire.execution import StatusDocument

HOLD_SECONDS: Final = 60.0
MAX_CACHED: Final = 128  # Versions, each of at most:
MAX_CACHED_BYTES: Final = 512 << 10
CONFIG: Final = "service"


@dataclass(frozen=True)
class Caller:
    """Who calls: a holder of a credential of the platform, of a token of the service, or anybody."""

    principal: Principal | None = None
    token: ServiceToken | None = None

    @property
    def is_anonymous(self) -> bool:
        return self.principal is None and self.token is None


@dataclass(frozen=True)
class Opened:
    """A published service, as somebody looks at it."""

    service: Service
    version: PublishedService


@dataclass(frozen=True)
class Call:
    """One call, with its input checked."""

    opened: Opened
    endpoint: Endpoint
    caller: Caller
    input_data: Any
    lifecycle_event: str = "workflow"
    parent_billing_transaction_id: str | None = None
    idempotency_key: str | None = None


class ServiceCalls:
    """Calls of all services."""

    def __init__(self, store: Store, submitter: Submitter, executions: Executions) -> None:
        self._store = store
        self._submitter = submitter
        self._executions = executions
        self._versions: OrderedDict[tuple[str, int], PublishedService] = OrderedDict()

    async def open(self, caller: Caller, org_id: str, id_or_slug: str, number: int | None) -> Opened:
        """The newest version, or the one with the number.

        Raises:
            NotFound: There is none that the caller may know of, or it is a draft.
            Unauthenticated: Nobody may be told whether there is one.
        """
        found = await self._store.read(lambda tx: self._find(tx, caller, org_id, id_or_slug, number))
        if found is not None:
            self._keep(found.version)
        return self._admit(caller, org_id, id_or_slug, found)

    async def artifact(self, caller: Caller, org_id: str, id_or_slug: str, number: int | None) -> Opened:
        """The same with the skills artifact, for who may read it: everybody, where everybody may call all endpoints."""
        found = await self._store.read(lambda tx: _find_whole(tx, caller, org_id, id_or_slug, number))
        opened = self._admit(caller, org_id, id_or_slug, found)
        if caller.is_anonymous and not all(each.auth is AuthMode.PUBLIC for each in opened.version.endpoints):
            raise _nobody()
        return opened

    def _admit(self, caller: Caller, org_id: str, id_or_slug: str, found: Opened | None) -> Opened:
        if caller.is_anonymous and not (
            found and any(endpoint.auth is AuthMode.PUBLIC for endpoint in found.version.endpoints)
        ):
            raise _nobody()
        if caller.principal is not None:
            caller.principal.require(Action.READ, org_id)
        if caller.token is not None and (found is None or caller.token.service_id != found.service.id):
            raise refused()
        if found is None:
            raise errors.NotFound(f"service {id_or_slug!r} has no such published version")
        return found

    def _find(self, tx: Transaction, caller: Caller, org_id: str, id_or_slug: str, number: int | None) -> Opened | None:
        service = _service_of(tx, caller, org_id, id_or_slug)
        if service is None:
            return None
        wanted = service.latest_version if number is None else number
        version = self._versions.get((service.id, wanted)) or tx.services.find_version(service.id, wanted)
        return Opened(service, version) if version else None

    def _keep(self, version: PublishedService) -> None:
        """Versions never change, so they are looked up once."""
        key = (version.service_id, version.number)
        if len(version.skills) > MAX_CACHED_BYTES:
            return
        self._versions[key] = version
        self._versions.move_to_end(key)
        if len(self._versions) > MAX_CACHED:
            self._versions.popitem(last=False)

    async def start(self, call: Call, variant: str) -> Execution:
        """Accepts the call. The same idempotency key again, by the same caller, gives the first execution.

        Args:
            call: What is called.
            variant: What else makes it another request.

        Raises:
            FlowError: As for a submit.
        """
        service, endpoint = call.opened.service, call.endpoint
        principal = acting(call.caller, service)
        submission = Submission(
            kind=endpoint.kind,
            component=endpoint.component_id,
            input_data=call.input_data,
            config={
                CONFIG: {
                    "id": service.id,
                    "slug": service.slug,
                    "version": call.opened.version.number,
                    "endpoint": endpoint.name,
                }
            },
            lifecycle_event=call.lifecycle_event,
            ring_id=service.ring_id,
            timeout_seconds=endpoint.timeout_seconds,
            is_timeout_instead=True,
            parent_billing_transaction_id=call.parent_billing_transaction_id,
            submitted_by=submitter_of(principal),
        )
        key = _idempotency(call, variant)
        return await self._submitter.submit(principal, service.org_id, service.workspace_id, submission, key)

    async def result(self, call: Call, execution_id: str) -> StatusDocument:
        """The end of the execution. Ends: every execution has a deadline, and the sweeper keeps it."""
        service = call.opened.service
        principal = acting(call.caller, service)
        while True:
            document = await self._executions.wait(
                principal, service.org_id, service.workspace_id, execution_id, HOLD_SECONDS
            )
            if document.status.is_terminal:
                return document

    async def job(
        self, caller: Caller, org_id: str, id_or_slug: str, job_id: str
    ) -> tuple[Opened, Endpoint, StatusDocument]:
        """What was called asynchronously, and where that is.

        Raises:
            NotFound: It is none of this service, or of an endpoint that the caller may not call.
        """
        opened = await self.open(caller, org_id, id_or_slug, None)
        service = opened.service
        principal = acting(caller, service)
        missing = errors.NotFound(f"job {job_id!r} not found")

        def operation(tx: Transaction) -> dict[str, Any]:
            self._executions.find(tx, principal, org_id, service.workspace_id, job_id)
            told = tx.executions.payload(job_id).config.get(CONFIG)
            if not isinstance(told, dict):
                raise missing
            return cast("dict[str, Any]", told)

        try:
            told = await self._store.read(operation)
        except errors.NotFound:
            raise missing from None
        if told.get("id") != service.id:
            raise missing
        called = await self.open(caller, org_id, service.id, told["version"])
        endpoint = next((each for each in called.version.endpoints if each.name == told["endpoint"]), None)
        if endpoint is None:
            raise missing
        check_may_call(caller, service, endpoint)
        return called, endpoint, await self._executions.get(principal, org_id, service.workspace_id, job_id)


def endpoints_at(version: PublishedService, path: str) -> dict[str, tuple[Endpoint, dict[str, str]]]:
    """What a path may mean, by method, with its parameters."""
    found: dict[str, tuple[Endpoint, dict[str, str]]] = {}
    for template, endpoint in most_literal_first((each.path, each) for each in version.endpoints):
        if endpoint.method not in found and (parameters := match(path, template)) is not None:
            found[endpoint.method] = endpoint, parameters
    return found


def check_may_call(caller: Caller, service: Service, endpoint: Endpoint) -> None:
    """Whether the caller may call the endpoint.

    Raises:
        Unauthenticated: There is no credential, and it is not public.
        Forbidden: The role may not submit, or the endpoint is not for tokens of the service.
    """
    if caller.principal is not None:
        caller.principal.require(Action.SUBMIT, service.org_id, service.workspace_id)
    elif endpoint.auth is AuthMode.PLATFORM and caller.token is not None:
        raise errors.Forbidden(
            f"endpoint {endpoint.name!r} is not for tokens of the service: expected a credential of the platform"
        )
    elif endpoint.auth is not AuthMode.PUBLIC and caller.is_anonymous:
        raise _nobody()


def acting(caller: Caller, service: Service) -> Principal:
    """Who the execution is started by. Without a credential of the platform it is the service itself."""
    if caller.principal is not None:
        return caller.principal
    who = (
        f"token {caller.token.name} of service {service.slug}" if caller.token else f"public of service {service.slug}"
    )
    return Principal(who, service.org_id, Role.RUNNER, service.workspace_id)


def _idempotency(call: Call, variant: str) -> IdempotencyKey | None:
    key = call.idempotency_key
    if key is None:
        return None
    check_key(IdempotencyKey(key, ""))
    service, version = call.opened.service, call.opened.version
    # Keys are one name space per workspace: those of strangers are kept apart from ours and from each other's.
    caller = call.caller
    who = caller.token.id if caller.token else caller.principal.subject if caller.principal else ""
    named = hashlib.sha256("\0".join((service.id, who, key)).encode("utf-8", "surrogatepass")).hexdigest()
    content = canonical([service.id, version.number, call.endpoint.name, variant, call.input_data])
    return IdempotencyKey(f"service:{named}", hashlib.sha256(content).hexdigest())


def _service_of(tx: Transaction, caller: Caller, org_id: str, id_or_slug: str) -> Service | None:
    """The service, if the caller may know of it; one of another workspace takes the way of one that nobody has."""
    if caller.principal is None:
        return tx.services.find(org_id, id_or_slug)
    if caller.principal.execution_id is not None:
        check_token_is_live(tx, caller.principal)
    if caller.principal.org_id != org_id:
        return None
    return tx.services.find(org_id, id_or_slug, inside=caller.principal.workspace_id)


def _find_whole(tx: Transaction, caller: Caller, org_id: str, id_or_slug: str, number: int | None) -> Opened | None:
    service = _service_of(tx, caller, org_id, id_or_slug)
    if service is None:
        return None
    version = tx.services.find_version(service.id, service.latest_version if number is None else number)
    return Opened(service, version) if version else None


def _nobody() -> errors.Unauthenticated:
    return errors.Unauthenticated("no credential: expected 'Authorization: Bearer TOKEN' or 'X-API-Key'")
